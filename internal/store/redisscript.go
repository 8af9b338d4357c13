package store

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// The parts the scripts share. Versions and times are whole microseconds below
// 2^53, which Lua's numbers hold exactly until the year 2255.
const (
	// have(key, now) returns the version of an item, "0" where there is none,
	// or nil where there is something else.
	luaHave = `
local function have(key, now)
  local f = redis.pcall('HMGET', key, 'v', 'x', 'd')
  if f.err then return nil end
  if not f[1] and not f[2] and not f[3] then
    if redis.call('EXISTS', key) == 1 then return nil end
    return '0'
  end
  if not (f[1] and f[2] and f[3]) then return nil end
  if f[2] ~= '0' and tonumber(f[2]) <= tonumber(now) then return '0' end
  return f[1]
end
`
	// change(key, deleted, nonce, keep) writes the log and returns the version of
	// the change: the time, or one more than the last one if that is later. So no
	// version comes back, also not after the server lost what it knew.
	luaChange = `
local time = redis.call('TIME')
local clock = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function change(key, deleted, nonce, keep)
  local last = tonumber(redis.call('GET', KEYS[2]) or '0')
  local top = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
  if top then last = math.max(last, tonumber(string.match(top[1], '^%d+'))) end
  local version = string.format('%.0f', math.max(clock, last + 1))
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', keep, version .. '-0', 'k', key, 'd', deleted, 'n', nonce)
  redis.call('SET', KEYS[2], version)
  return version
end
`
	// sweep clears away what has expired, a bounded number of items for each
	// write: more than writes add.
	luaSweep = `
local function sweep(items)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', '(' .. string.format('%.0f', clock), 'LIMIT', 0, 16)) do
    redis.call('DEL', items .. key)
    redis.call('ZREM', KEYS[4], key)
    redis.call('ZREM', KEYS[5], key)
  end
end
`
)

// putScript stores an item: KEYS item, head, log, index, expiry; ARGV key, items,
// expected version, now, nonce, length of the log, expiry, life in microseconds
// ("0" for ever), value.
var putScript = rueidis.NewLuaScript(luaHave + luaChange + luaSweep + `
local key, items, want, now, nonce, keep, expires, life, value = unpack(ARGV)
local found = have(KEYS[1], now)
if not found and want ~= 'any' then
  if want == '0' then return {'conflict'} end
  return {'corrupt'}
end
if want ~= 'any' and want ~= found then return {'conflict'} end
sweep(items)
local version = change(key, '0', nonce, keep)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', version, 'x', expires, 'd', value)
redis.call('ZADD', KEYS[4], 0, key)
if life == '0' then
  redis.call('ZREM', KEYS[5], key)
else
  local till = clock + tonumber(life)
  redis.call('ZADD', KEYS[5], string.format('%.0f', till), key)
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.ceil(till / 1000)))
end
return {'ok', version}
`)

// deleteScript removes an item: the same KEYS; ARGV key, items, expected version,
// now, nonce, length of the log.
var deleteScript = rueidis.NewLuaScript(luaHave + luaChange + luaSweep + `
local key, items, want, now, nonce, keep = unpack(ARGV)
local found = have(KEYS[1], now)
if found == '0' then return {'missing'} end
if not found and want ~= 'any' then return {'corrupt'} end
if want ~= 'any' and want ~= found then return {'conflict'} end
sweep(items)
local version = change(key, '1', nonce, keep)
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[4], key)
redis.call('ZREM', KEYS[5], key)
return {'ok', version}
`)

// listScript reads items in the order of their keys: KEYS index; ARGV items,
// lower and upper bound, most items, most bytes. It returns the key to go on
// behind, empty at the end, and for each item four values: its key and the
// fields of its hash, or an empty version where it cannot be read.
var listScript = rueidis.NewLuaScriptRetryable(`
local items, from, to, most, bytes = unpack(ARGV)
most, bytes = tonumber(most), tonumber(bytes)
local keys = redis.call('ZRANGEBYLEX', KEYS[1], from, to, 'LIMIT', 0, most)
local out, size = {''}, 0
for i, key in ipairs(keys) do
  local f = redis.pcall('HMGET', items .. key, 'v', 'x', 'd')
  if f.err then f = {'', '', ''} end
  if f[1] or f[2] or f[3] then
    for _, part in ipairs({key, f[1] or '', f[2] or '', f[3] or ''}) do out[#out + 1] = part end
    size = size + #(f[3] or '')
  end
  if (i == #keys and i == most) or (size >= bytes and i < #keys) then
    out[1] = key
    break
  end
end
return out
`)

const (
	// logLength is about how many changes a replica may be behind before it has to
	// forget what it knows.
	logLength = 1 << 16
	// remains is how much longer than an item what it leaves on the server is
	// kept, so that no replica's slow clock misses the item.
	remains = time.Minute
)

// Put implements Store.
func (r *Redis) Put(ctx context.Context, item Item) (uint64, error) {
	if err := checkItem(item); err != nil {
		return 0, err
	}
	now := r.now()
	expires, life := int64(0), int64(0)
	if !item.Expires.IsZero() {
		if expires = item.Expires.UnixMicro(); expires == 0 {
			expires = 1 // 1970 is past, not never
		}
		life = (max(item.Expires.Sub(now), 0) + remains).Microseconds()
	}
	return r.change(ctx, putScript, item.Key, item.Version, now,
		strconv.FormatInt(expires, 10), strconv.FormatInt(life, 10), string(item.Value))
}

// Delete implements Store.
func (r *Redis) Delete(ctx context.Context, key string, version uint64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	_, err := r.change(ctx, deleteScript, key, version, r.now())
	return err
}

func (r *Redis) change(ctx context.Context, script *rueidis.Lua, key string, want uint64, now time.Time, more ...string) (uint64, error) {
	expected := "any"
	if want != Any {
		expected = strconv.FormatUint(want, 10)
	}
	keys := []string{r.items + key, r.head, r.log, r.index, r.expiry}
	args := append([]string{key, r.items, expected, strconv.FormatInt(now.UnixMicro(), 10), newNonce(), strconv.Itoa(logLength)}, more...)
	var answer []string
	err := r.do(ctx, func(ctx context.Context) (err error) {
		answer, err = script.Exec(ctx, r.client, keys, args).AsStrSlice()
		return err
	})
	if err != nil {
		return 0, r.failed(ctx, err)
	}
	switch {
	case len(answer) == 2 && answer[0] == "ok":
		version, err := strconv.ParseUint(answer[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%w: redis: a version that is none", ErrUnavailable)
		}
		return version, nil
	case len(answer) == 1 && answer[0] == "missing":
		return 0, ErrNotFound
	case len(answer) == 1 && answer[0] == "conflict":
		return 0, ErrConflict
	case len(answer) == 1 && answer[0] == "corrupt":
		return 0, corrupt(key)
	}
	return 0, fmt.Errorf("%w: redis: the script answered %.40q", ErrUnavailable, answer)
}

// List implements Store. Like File it reads in chunks, so that callers may write
// meanwhile.
func (r *Redis) List(ctx context.Context, prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		from, to := "["+prefix, upperBound(prefix)
		if prefix == "" {
			from = "-"
		}
		for {
			var chunk []string
			err := r.do(ctx, func(ctx context.Context) (err error) {
				chunk, err = listScript.Exec(ctx, r.client, []string{r.index},
					[]string{r.items, from, to, strconv.Itoa(listChunk), strconv.Itoa(listChunkBytes)}).AsStrSlice()
				return err
			})
			if err == nil && len(chunk)%4 != 1 {
				err = fmt.Errorf("the list has %d parts", len(chunk))
			}
			if err != nil {
				yield(Item{}, r.failed(ctx, err))
				return
			}
			next := chunk[0]
			for part := chunk[1:]; len(part) > 0; part = part[4:] {
				item, err := parseItem(part[0], part[1], part[2], part[3])
				if !item.expired(r.now()) && !yield(item, err) {
					return
				}
			}
			if next == "" {
				return
			}
			from = "(" + next
		}
	}
}

// upperBound returns the bound, as ZRANGEBYLEX writes it, below which all keys
// with the prefix are.
func upperBound(prefix string) string {
	b := []byte(prefix)
	for len(b) > 0 && b[len(b)-1] == 0xff {
		b = b[:len(b)-1]
	}
	if len(b) == 0 {
		return "+"
	}
	b[len(b)-1]++
	return "(" + string(b)
}
