package store_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/store/redistest"
	"github.com/doorward/doorward/internal/store/storetest"
)

func openRedis(t *testing.T, cfg store.RedisConfig, now func() time.Time) *store.Redis {
	t.Helper()
	r, err := store.OpenRedis(cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// fresh returns an opener of stores on one server that do not see each other.
func fresh(cfg store.RedisConfig) storetest.Open {
	var n atomic.Int64
	return func(t *testing.T, now func() time.Time) store.Store {
		cfg := cfg
		cfg.Prefix = fmt.Sprint("test", n.Add(1))
		return openRedis(t, cfg, now)
	}
}

func TestRedis(t *testing.T) { storetest.Run(t, fresh(redistest.Start(t).Config())) }

func TestRedisCluster(t *testing.T) {
	storetest.Run(t, fresh(redistest.StartCluster(t).Config()))
}

func TestRedisTLS(t *testing.T) {
	s := redistest.StartTLS(t, "--requirepass", "p@ss:word")
	cfg := s.Config()
	cfg.Password = access.NewSecret("p@ss:word")
	storetest.Run(t, fresh(cfg))

	inURL := s.Config()
	inURL.URL = access.NewSecret("rediss://:p%40ss%3Aword@" + s.Addr + "/3")
	if _, err := openRedis(t, inURL, nil).Put(t.Context(), store.Item{Key: "k"}); err != nil {
		t.Error(err)
	}
	for cure, change := range map[string]func(*store.RedisConfig){
		"redis.ca":                func(c *store.RedisConfig) { c.CA = "" },
		"redis.password":          func(c *store.RedisConfig) { c.Password = access.Secret{} },
		"check user and password": func(c *store.RedisConfig) { c.Password = access.NewSecret("wrong") },
	} {
		cfg := cfg
		change(&cfg)
		r, err := store.OpenRedis(cfg, nil)
		if err == nil {
			r.Close()
		}
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), cure) || strings.Contains(err.Error(), "p@ss") {
			t.Errorf("%s: %v", cure, err)
		}
	}
}

// A user with no more than the rights that docs/replicas.md lists will do.
func TestRedisRights(t *testing.T) {
	text, err := os.ReadFile("../../docs/replicas.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rights, _ := strings.Cut(string(text), "user of its own needs `")
	rights, _, _ = strings.Cut(rights, "`")
	server := redistest.Start(t)
	if answer := server.Do(append([]string{"ACL", "SETUSER", "doorward", "on", ">s3cret"}, strings.Fields(rights)...)...); answer != "OK" {
		t.Fatal(answer)
	}
	cfg := server.Config()
	cfg.Username, cfg.Password = "doorward", access.NewSecret("s3cret")
	r := openRedis(t, cfg, nil)
	changes := watchAgain(t, r)
	v := put(t, r, "k")
	if c := <-changes; c.Version != v {
		t.Errorf("%+v", c)
	}
	if _, err := r.Put(t.Context(), store.Item{Key: "ends", Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Error(err)
	}
	for what, err := range operations(t, r) {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if log := server.Do("ACL", "LOG"); log != "" {
		t.Errorf("refused: %s", log)
	}
	cfg.Prefix = "other"
	other, err := store.OpenRedis(cfg, nil)
	if err == nil {
		defer other.Close()
		_, err = other.Get(t.Context(), "k")
	}
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "docs/replicas.md") {
		t.Errorf("keys of somebody else: %v", err)
	}
}
