"""What the definition files say: schema, Lua loading, validation."""
