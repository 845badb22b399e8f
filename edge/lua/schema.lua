-- The types of bodies: for each field, how it is read and what is reported if its value is of a wrong type. A field:
--   name            the documented name
--   read            the reader, of values.lua or objects.lua
--   number          the kind of a number
--   must_be         the rule for its value; `sort` and `parsing` are the kinds of faults
--   fits            whether a value of a map has the right type
--   of              the type of an object
--   item            the field's items: must_be, sort, of, and the value that replaces a faulty one
--   text            the field for the exact text of the value
--   required        whether it must not be null
--   noted           whether the text of its value is a result
--   seen, replaced  the numbers of the last objects that had it, or had its text from another field

local TYPES = require("fields")
local objects = require("objects")
local values = require("values")

-- For each kind of value: its reader, the rule for a value and for an item, and the kinds of faults, which are pydantic's, as
-- FastAPI sends them.
local KINDS = {
  string = { values.string, "a string", sort = "string_type" },
  strings = { values.strings, "an array", "a string", sort = "list_type", item = { sort = "string_type", neutral = '""' } },
  bool = { values.bool, "true or false", sort = "bool_type", parsing = "bool_parsing" },
  double = { values.number, "a number", sort = "float_type", parsing = "float_parsing" },
  uint32 = { values.number, "a whole number, zero or more", sort = "int_type", parsing = "int_parsing" },
  int64 = { values.number, "a whole number", sort = "int_type", parsing = "int_parsing" },
  object = { objects.object, "an object", sort = "model_attributes_type" },
  objects = {
    objects.objects,
    "an array",
    "an object",
    sort = "list_type",
    item = { sort = "model_attributes_type", neutral = "{}" },
  },
  value = { values.any },
  struct = { values.struct, "an object", sort = "dict_type" },
  structs = { values.structs, "an array", "an object", sort = "list_type", item = { sort = "dict_type", neutral = "{}" } },
  string_map = { values.map, "an object whose values are each a string", sort = "dict_type", fits = values.is_string },
  double_map = { values.map, "an object whose values are each a number", sort = "dict_type", fits = values.is_double },
}

local FIELDS = {} -- the fields of each type by name; both names of a field have the same entry

local NOTED = { stream = true, temperature = true }

-- Fields that must not be null.
local REQUIRED = {
  CreateChatCompletionRequest = { messages = true },
  Message = { role = true },
  Tool = { type = true },
  FunctionDefinition = { name = true },
  ResponseFormat = { type = true },
  AudioOutput = { format = true },
  Prediction = { type = true },
  ModerationOptions = { model = true },
}

for name, row in pairs(TYPES) do
  FIELDS[name] = { extra = row.extra }
end
for name, row in pairs(TYPES) do
  local fields, canonical = {}, {}
  for key, described in pairs(row.fields) do
    local kind = KINDS[described[1]]
    local documented = described.name or key
    local field = canonical[documented]
      or {
        name = documented,
        read = kind[1],
        number = described[1],
        must_be = kind[2] and "must be " .. kind[2],
        sort = kind.sort,
        parsing = kind.parsing,
        fits = kind.fits,
        of = FIELDS[described.of],
        item = kind.item and {
          must_be = "must be " .. kind[3],
          sort = kind.item.sort,
          neutral = kind.item.neutral,
          of = FIELDS[described.of],
        },
        text = described.text,
        required = REQUIRED[name] and REQUIRED[name][documented],
        noted = name == "CreateChatCompletionRequest" and NOTED[documented],
        seen = 0,
      }
    canonical[documented], fields[key] = field, field
  end
  FIELDS[name].fields = fields
end

return FIELDS
