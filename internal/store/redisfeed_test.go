package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/store/redistest"
)

// eventually waits for what another process does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// put stores a value under any version, until the server takes it.
func put(t *testing.T, s store.Store, key string) (version uint64) {
	t.Helper()
	eventually(t, "a write", func() bool {
		var err error
		version, err = s.Put(t.Context(), store.Item{Key: key, Version: store.Any})
		return err == nil
	})
	return version
}

// watchAgain watches as soon as the store can tell of changes.
func watchAgain(t *testing.T, s store.Store) (changes <-chan store.Change) {
	t.Helper()
	eventually(t, "a watch", func() bool {
		var err error
		changes, err = s.Watch(t.Context(), "")
		return err == nil
	})
	return changes
}

func cut(t *testing.T, s *redistest.Server) {
	t.Helper()
	s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
}

// What one replica changes another one learns of, without asking for it, also
// when its connection broke in between.
func TestRedisTellsReplicas(t *testing.T) {
	server := redistest.Start(t)
	cfg := server.Config()
	cfg.Grace = access.Duration(time.Minute)
	here, there := openRedis(t, cfg, nil), openRedis(t, cfg, nil)
	changes := watchAgain(t, here)
	for i := range 20 {
		v := put(t, there, "k")
		if c := <-changes; c != (store.Change{Key: "k", Version: v}) {
			t.Fatalf("round %d: %+v", i, c)
		}
		cut(t, server)
	}
	version := put(t, there, "k")
	<-changes
	server.Freeze() // nothing is lost, it is only late
	thawed := time.AfterFunc(100*time.Millisecond, server.Thaw)
	defer thawed.Stop()
	eventually(t, "the removal", func() bool { return there.Delete(t.Context(), "k", version) != nil })
	if c := <-changes; c.Key != "k" || !c.Deleted || c.Version <= version {
		t.Errorf("%+v", c)
	}
}

// While the server is away nobody may go on with what they know, unless a grace
// was asked for. What changed meanwhile is told before anything else.
func TestRedisAway(t *testing.T) {
	for _, c := range []struct {
		name  string
		grace time.Duration
	}{{"without grace", 0}, {"with grace", time.Minute}} {
		t.Run(c.name, func(t *testing.T) {
			server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
			cfg := server.Config()
			cfg.Grace = access.Duration(c.grace)
			here := openRedis(t, cfg, nil)
			changes := watchAgain(t, here)
			server.Kill()
			if c.grace == 0 {
				if c, open := <-changes; open {
					t.Fatalf("%+v", c)
				}
				if _, err := here.Watch(t.Context(), ""); !errors.Is(err, store.ErrUnavailable) || here.Err() == nil {
					t.Errorf("watching nothing: %v", err)
				}
				for what, err := range operations(t, here) {
					if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "start it") {
						t.Errorf("%s: %v", what, err)
					}
				}
			}
			server.Restart()
			there := openRedis(t, server.Config(), nil)
			if c.grace == 0 {
				changes = watchAgain(t, here)
			}
			v := put(t, there, "k")
			if c := <-changes; c != (store.Change{Key: "k", Version: v}) {
				t.Errorf("after the restart: %+v", c)
			}
			if here.Err() != nil {
				t.Error(here.Err())
			}
		})
	}
}

func operations(t *testing.T, s store.Store) map[string]error {
	_, getErr := s.Get(t.Context(), "k")
	_, putErr := s.Put(t.Context(), store.Item{Key: "k", Version: store.Any})
	errs := map[string]error{"get": getErr, "put": putErr, "delete": s.Delete(t.Context(), "k", store.Any)}
	for _, err := range s.List(t.Context(), "") {
		errs["list"] = err
	}
	return errs
}

// The grace ends.
func TestRedisGraceEnds(t *testing.T) {
	server := redistest.Start(t)
	cfg := server.Config()
	cfg.Grace = access.Duration(300 * time.Millisecond)
	here := openRedis(t, cfg, nil)
	changes := watchAgain(t, here)
	server.Kill()
	if c, open := <-changes; open {
		t.Errorf("%+v", c)
	}
}

// A server that says nothing is noticed although no connection broke, and no
// caller waits for ever.
func TestRedisSilent(t *testing.T) {
	server := redistest.Start(t)
	cfg := server.Config()
	cfg.Timeout = access.Duration(200 * time.Millisecond)
	here := openRedis(t, cfg, nil)
	changes := watchAgain(t, here)
	server.Freeze()
	defer server.Thaw()
	if c, open := <-changes; open {
		t.Errorf("%+v", c)
	}
	for what, err := range operations(t, here) {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := here.Get(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline of one's own: %v", err)
	}
}

// Whatever makes the log something else than it was is noticed, and versions go
// on growing.
func TestRedisLosesItsMemory(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, s *redistest.Server, other store.Store){
		"restart without a disk": func(t *testing.T, s *redistest.Server, _ store.Store) { s.Kill(); s.Restart() },
		"flush":                  func(t *testing.T, s *redistest.Server, _ store.Store) { s.Do("FLUSHALL") },
		"log evicted":            func(t *testing.T, s *redistest.Server, _ store.Store) { s.Do("DEL", "{doorward}:log") },
		"head evicted": func(t *testing.T, s *redistest.Server, _ store.Store) {
			s.Do("DEL", "{doorward}:head")
			s.Do("XTRIM", "{doorward}:log", "MAXLEN", "0")
		},
		"too far behind": func(t *testing.T, s *redistest.Server, other store.Store) {
			s.Do("XTRIM", "{doorward}:log", "MAXLEN", "0")
			put(t, other, "y")
		},
		// A failover that undoes a change and then makes another one in its place.
		"another history": func(t *testing.T, s *redistest.Server, _ store.Store) {
			last := strings.Fields(s.Do("XREVRANGE", "{doorward}:log", "+", "-", "COUNT", "1"))[0]
			s.Do("EVAL", `redis.call('DEL', KEYS[1]) redis.call('XADD', KEYS[1], ARGV[1], 'k', 'k', 'd', '1', 'n', 'other')`, "1", "{doorward}:log", last)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			cfg := server.Config()
			cfg.Grace = access.Duration(time.Minute)
			here, there := openRedis(t, cfg, nil), openRedis(t, cfg, nil)
			changes := watchAgain(t, here)
			before := put(t, there, "k")
			if c := <-changes; c.Version != before {
				t.Fatalf("%+v", c)
			}
			lose(t, server, there)
			after := put(t, there, "k")
			if after <= before {
				t.Errorf("version %d after %d", after, before)
			}
			if c := <-changes; !c.Lost {
				t.Errorf("%+v", c)
			}
			v := put(t, there, "z")
			for c := range changes {
				if c.Key == "z" && c.Version == v {
					break
				}
			}
		})
	}
}

// The master dies, its replica takes over: the store goes on, and watchers know.
func TestRedisSentinel(t *testing.T) {
	s := redistest.StartSentinel(t)
	cfg := s.Config()
	cfg.Grace = access.Duration(time.Minute)
	here := openRedis(t, cfg, nil)
	changes := watchAgain(t, here)
	before := put(t, here, "k")
	if c := <-changes; c.Version != before {
		t.Fatalf("%+v", c)
	}
	if s.Master.Do("WAIT", "1", "10000") == "0" {
		t.Log("the replica was behind")
	}
	s.KillMaster()
	after := put(t, here, "k")
	if after <= before {
		t.Errorf("version %d after %d", after, before)
	}
	for c := range changes {
		if c.Lost || c.Version == after {
			break
		}
	}
	if item, err := here.Get(t.Context(), "k"); err != nil || item.Version != after {
		t.Errorf("%+v, %v", item, err)
	}
}

// A master that was cut off from its replicas answers every question as before,
// and may know nothing of what another master has been told since. Where it was
// told to refuse writes then, nobody relies on what it says.
func TestRedisCutOffMaster(t *testing.T) {
	s := redistest.StartPair(t)
	s.Master.Do("CONFIG", "SET", "min-replicas-to-write", "1")
	here := openRedis(t, s.Master.Config(), nil)
	changes := watchAgain(t, here)
	s.Replica.Kill()
	if c, open := <-changes; open {
		t.Errorf("%+v", c)
	}
	if _, err := here.Watch(t.Context(), ""); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "lost its replicas") {
		t.Error(err)
	}
	s.Replica.Restart()
	watchAgain(t, here)
}

// A server without room refuses writes; what is known stays true.
func TestRedisFull(t *testing.T) {
	server := redistest.Start(t)
	here := openRedis(t, server.Config(), nil)
	changes := watchAgain(t, here)
	put(t, here, "k")
	<-changes
	server.Do("CONFIG", "SET", "maxmemory", "1")
	refused := func() bool {
		for line := range strings.Lines(server.Do("INFO", "commandstats")) {
			if strings.HasPrefix(line, "cmdstat_set:") {
				return !strings.Contains(line, "rejected_calls=0")
			}
		}
		return false
	}
	if _, err := here.Put(t.Context(), store.Item{Key: "k", Version: store.Any}); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "raise maxmemory") {
		t.Errorf("a write without room: %v", err)
	}
	eventually(t, "a sign of life that is refused", refused)
	if _, err := here.Get(t.Context(), "k"); err != nil || here.Err() != nil {
		t.Errorf("a read: %v, %v", err, here.Err())
	}
	server.Do("CONFIG", "SET", "maxmemory", "0")
	v := put(t, here, "k")
	if c := <-changes; c.Version != v {
		t.Errorf("%+v", c)
	}
}

// A log that is gone and cannot be begun again at once: what changes until it can
// is told, or that something was lost.
func TestRedisBeginsItsLogLate(t *testing.T) {
	server := redistest.Start(t)
	cfg := server.Config()
	cfg.Grace = access.Duration(time.Minute)
	here, there := openRedis(t, cfg, nil), openRedis(t, cfg, nil)
	changes := watchAgain(t, here)
	put(t, there, "k")
	<-changes
	server.Do("CONFIG", "SET", "maxmemory", "1")
	server.Do("DEL", "{doorward}:log")
	tries := server.Calls("evalsha", "eval")
	eventually(t, "several vain attempts", func() bool { return server.Calls("evalsha", "eval") >= tries+8 })
	for len(changes) > 0 {
		<-changes // whatever was told before the change
	}
	server.Do("CONFIG", "SET", "maxmemory", "0")
	put(t, there, "z")
	eventually(t, "word of the change", func() bool { return len(changes) > 0 })
	if c := <-changes; !c.Lost && c.Key != "z" {
		t.Errorf("%+v", c)
	}
}

// What somebody else put in the place of an item is that item's own trouble.
func TestRedisDamage(t *testing.T) {
	server := redistest.Start(t)
	here := openRedis(t, server.Config(), nil)
	ctx := t.Context()
	for i, damage := range [][]string{
		{"SET", "text"}, {"HSET", "v", "x"}, {"HSET", "v", "x", "x", "0", "d", ""}, {"HSET", "d", "x"}, {"LPUSH", "x"},
	} {
		key := fmt.Sprint("k", i)
		put(t, here, key)
		place := "{doorward}/" + key
		server.Do("DEL", place)
		server.Do(append([]string{damage[0], place}, damage[1:]...)...)
		_, err := here.Get(ctx, key)
		if !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%q: %v", damage, err)
		}
	}
	good := put(t, here, "k9")
	damaged := 0
	for item, err := range here.List(ctx, "k") {
		if err != nil {
			damaged++
		} else if item.Key != "k9" || item.Version != good {
			t.Errorf("%+v", item)
		}
		if err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Error(err)
		}
	}
	if damaged != 5 {
		t.Errorf("%d damaged items were listed", damaged)
	}
	if _, err := here.Put(ctx, store.Item{Key: "k0", Version: store.New}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("new in place of damage: %v", err)
	}
	if _, err := here.Put(ctx, store.Item{Key: "k0", Version: 7}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("swap of damage: %v", err)
	}
	if err := here.Delete(ctx, "k0", 7); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("removal of a version of damage: %v", err)
	}
	if err := here.Delete(ctx, "k1", store.Any); err != nil {
		t.Error(err)
	}
	put(t, here, "k0")
}

// What has expired does not stay on the server, in no form.
func TestRedisClearsAway(t *testing.T) {
	server := redistest.Start(t)
	clock := time.Now()
	here := openRedis(t, server.Config(), func() time.Time { return clock })
	for i := range 50 {
		// As a replica whose clock is ahead would have written it.
		if _, err := here.Put(t.Context(), store.Item{Key: fmt.Sprint("k/", i), Expires: clock.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"{doorward}:index", "{doorward}:expiry"} {
		if n := server.Do("ZCARD", key); n != "50" {
			t.Errorf("%s: %s", key, n)
		}
	}
	life := server.Do("PTTL", "{doorward}/k/7")
	if len(life) != 7 { // an hour and a minute, in milliseconds
		t.Errorf("life %s", life)
	}
	server.Do("EVAL", `for _, k in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', KEYS[1], 1, k) end`, "1", "{doorward}:expiry")
	for range 5 {
		put(t, here, "stays")
	}
	if keys := server.Do("DBSIZE"); keys != "5" { // the item, its place in the index, head, log and sign of life
		t.Errorf("%s keys are left: %s", keys, server.Do("KEYS", "*"))
	}
}

func TestRedisURL(t *testing.T) {
	for _, good := range []string{
		"redis://host", "redis://host:1", "rediss://user:pa%2Fss@host:6380/3", "valkey://host", "valkeys://[::1]:6379/", "redis://:p@10.0.0.1",
		"redis+sentinel://a,b:1,c/main", "rediss+sentinel://a/main/2", "redis+cluster://a:1,b:2", "REDIS://host",
	} {
		if got := redisFaults(store.RedisConfig{URL: access.NewSecret(good)}); got != "" {
			t.Errorf("%s: %s", good, got)
		}
	}
	for _, bad := range []string{
		"host", "http://host", "redis://", "redis://a,b", "redis+sentinel://a", "redis+cluster://a/1", "redis://host/x", "redis://host/-1", "redis+ring://a",
		"redis://host:0", "redis://host:99999", "redis://u:hunter2@ho st", "redis://u:hunter2%zz@host", "redis://host?x=1", "redis://g::1",
	} {
		got := redisFaults(store.RedisConfig{URL: access.NewSecret(bad)})
		if got == "" || strings.Contains(got, "hunter2") {
			t.Errorf("%s: %q", bad, got)
		}
	}
	for want, cfg := range map[string]store.RedisConfig{
		"address of the server is missing": {},
		"a password here and in the url":   {URL: access.NewSecret("redis://:p@h"), Password: access.NewSecret("q")},
		"does not ask for TLS":             {URL: access.NewSecret("redis://h"), CA: "x"},
		"one of certificate and key":       {URL: access.NewSecret("rediss://h"), ClientCert: "x"},
		"prefix":                           {URL: access.NewSecret("redis://h"), Prefix: "a{b"},
		"timeout":                          {URL: access.NewSecret("redis://h"), Timeout: access.Duration(time.Minute)},
		"grace":                            {URL: access.NewSecret("redis://h"), Grace: access.Duration(24 * time.Hour)},
	} {
		if got := redisFaults(cfg); !strings.Contains(got, want) {
			t.Errorf("%s: %s", want, got)
		}
	}
	if got := redisFaults(store.RedisConfig{URL: access.Secret{Env: "REDIS_URL"}}); got != "" {
		t.Errorf("a secret that was not read: %s", got)
	}
}

func redisFaults(cfg store.RedisConfig) string {
	f := access.NewFaults("redis")
	cfg.Validate(f)
	var all []string
	for _, fault := range f.List() {
		all = append(all, fault.Path+": "+fault.Text+" ("+fault.Cure+")")
	}
	return strings.Join(all, "\n")
}
