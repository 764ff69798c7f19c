-- log: up to `limit` events behind number `after`, of one turn or of all; the log's first and last
-- number with them, from one moment. A session that has expired has none.
local after, limit, of = number(), number(), optional()
if not find() then return done() end
local PAGE = 500
local events = {}

local function add(entry)
  local id, fields = string.match(entry[1], '^%d+'), entry[2]
  events[#events + 1] = {tonumber(id), fields[2], fields[4], fields[6]}
end

if not of then
  local page = call('XRANGE', L, (after + 1) .. '-0', '+', 'COUNT', limit)
  for _, entry in ipairs(page) do add(entry) end
else
  local found, ended = turn(tonumber(of)), false
  local from = found and math.max(after, found.first - 1) or after
  while not ended and #events < limit do
    local page = call('XRANGE', L, (from + 1) .. '-0', '+', 'COUNT', PAGE)
    for _, entry in ipairs(page) do
      local fields = entry[2]
      if fields[4] == of and #events < limit then
        add(entry)
        ended = fields[2] == 'turn.completed' or fields[2] == 'turn.failed'
          or fields[2] == 'turn.cancelled'
      end
      from = tonumber(string.match(entry[1], '^%d+'))
    end
    if #page < PAGE then break end
  end
end
return done({row.floor, row.last_event, events})
