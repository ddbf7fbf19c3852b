-- sodium: keys, sealed boxes and signatures.  All strings are bytes.

local kernel, python = ...
local select = select

local sodium = {}

-- Functions by their number of arguments, all of them strings
for name, wanted in next, {
  bin2hex = 1,
  hex2bin = 1,
  crypto_box_keypair = 0,
  crypto_box_seal = 2,
  crypto_box_seal_open = 3,
  crypto_scalarmult_base = 1,
  crypto_sign_keypair = 0,
  crypto_sign_detached = 2,
  crypto_sign_verify_detached = 3,
} do
  local called = python[name]
  sodium[name] = function(...)
    local first, second, third = ...
    if wanted > 0 then first = kernel.string(name, 1, first) end
    if wanted > 1 then second = kernel.string(name, 2, second) end
    if wanted > 2 then third = kernel.string(name, 3, third) end
    kernel.no_more(name, wanted, select(wanted + 1, ...))
    if wanted == 0 then return called() end
    if wanted == 1 then return called(first) end
    if wanted == 2 then return called(first, second) end
    return called(first, second, third)
  end
end

function sodium.randombytes(size, ...)
  size = kernel.integer("randombytes", 1, size, 1, 1048576)
  kernel.no_more("randombytes", 1, ...)
  return python.randombytes(size)
end

return { sodium = sodium }
