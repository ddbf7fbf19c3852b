-- A filter for pandoc that makes a man page of a page of the documentation.
--
-- A block of code before the text is the synopsis.  Tables become lists, as a man page has the width of its terminal:
-- the first cell is the term, the second its meaning, and others follow with the heading of their column.  A link to a
-- page that is a man page names that; others lose their target.

local stringify = pandoc.utils.stringify
local pages = {} -- man pages by the file that they are made of: spawnctl.md = "spawnctl(1)"

local function heading(text)
  return pandoc.Header(1, { pandoc.Str(text) })
end

-- A paragraph of a line of code, which is wrapped between its words.
local function wrapped(line)
  local inlines = pandoc.List()
  for word in line:gmatch("%S+") do
    if #inlines > 0 then inlines:insert(pandoc.Space()) end
    inlines:insert(pandoc.Str(word))
  end
  return pandoc.Para(inlines)
end

local function cells(row)
  local found = {}
  for _, cell in ipairs(row.cells) do table.insert(found, cell.contents) end
  return found
end

function Table(whole)
  local heads = whole.head.rows[1] and cells(whole.head.rows[1]) or {}
  local items = {}
  for _, row in ipairs(whole.bodies[1].body) do
    local term, definition = nil, {}
    for number, contents in ipairs(cells(row)) do
      local inlines = pandoc.utils.blocks_to_inlines(contents)
      if number == 1 then
        term = inlines
      elseif #inlines > 0 then
        local head = heads[number] and stringify(heads[number]) or ""
        if number > 2 and head ~= "" then
          inlines = pandoc.List({ pandoc.Emph({ pandoc.Str(head .. ":") }), pandoc.Space() }) .. inlines
        end
        table.insert(definition, pandoc.Para(inlines))
      end
    end
    table.insert(items, { term, { definition } })
  end
  return pandoc.DefinitionList(items)
end

function Link(link)
  local page = pages[link.target:match("^([^#]*)"):match("([^/]*)$")]
  local text = stringify(link)
  if page and not text:find("(", 1, true) and link.target:find("^[^:]*$") then
    local name, section = page:match("^(.-)(%(%d%))$")
    local words = pandoc.List({ pandoc.Strong({ pandoc.Str(name) }), pandoc.Str(section) })
    if text == name then return words end
    return link.content .. pandoc.List({ pandoc.Str(" ("), }) .. words .. pandoc.List({ pandoc.Str(")") })
  end
  return link.content
end

-- The key words of tables and lists are wide on a terminal already.
function Code(code)
  return pandoc.Strong({ pandoc.Str(code.text) })
end

local function read(meta)
  for _, entry in ipairs(meta.pages or {}) do
    local file, page = stringify(entry):match("^(.-)=(.*)$")
    pages[file] = page
  end
end

local function arrange(document)
  local blocks, name = pandoc.List(), stringify(document.meta.name)
  local rest = document.blocks
  if rest[1].t == "Header" then rest:remove(1) end
  local synopsis = rest[1].t == "CodeBlock" and rest:remove(1) or nil
  blocks:insert(heading("NAME"))
  blocks:insert(pandoc.Para({ pandoc.Str(name .. " - " .. stringify(document.meta.summary or first_sentence(rest[1]))) }))
  if synopsis then
    blocks:insert(heading("SYNOPSIS"))
    for line in synopsis.text:gmatch("[^\n]+") do blocks:insert(wrapped(line)) end
  end
  blocks:insert(heading("DESCRIPTION"))
  for _, block in ipairs(rest) do
    if block.t == "Header" then
      block.level = math.max(block.level - 1, 1)
      if block.level == 1 then block = heading(stringify(block):upper()) end
    end
    blocks:insert(block)
  end
  document.blocks = blocks
  return document
end

return {
  { Meta = read },
  { Link = Link },
  { Table = Table, Code = Code },
  { Pandoc = arrange },
}
