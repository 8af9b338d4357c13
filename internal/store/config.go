package store

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Config says where sessions and keys are kept. Without it they are kept in one
// local file.
type Config struct {
	// Memory keeps everything in memory: a restart logs everyone out. Default
	// false.
	Memory bool `yaml:"memory"`
	// File keeps everything in one local file that only one doorward may use at
	// a time.
	File FileConfig `yaml:"file"`
	// Redis keeps everything on a Redis or Valkey server, which several replicas
	// of doorward may share.
	Redis *RedisConfig `yaml:"redis"`
}

// FileConfig names the state file.
type FileConfig struct {
	// Path is the state file, such as /var/lib/doorward/doorward.db. The file is
	// created if it does not exist, and so is its folder, but not the folder
	// above. Default: doorward.db in the folder that systemd hands over in
	// STATE_DIRECTORY, else /var/lib/doorward/doorward.db.
	Path string `yaml:"path"`
}

// Validate reports every mistake in the section.
func (c Config) Validate(f access.Faults) {
	var chosen []string
	for name, is := range map[string]bool{"memory": c.Memory, "file": c.File != (FileConfig{}), "redis": c.Redis != nil} {
		if is {
			chosen = append(chosen, name)
		}
	}
	if slices.Sort(chosen); len(chosen) > 1 {
		f.Add("keep one of them", "the store is %s at once", strings.Join(chosen, " and "))
	}
	if c.Redis != nil {
		c.Redis.Validate(f.At("redis"))
	}
	if strings.HasSuffix(c.File.Path, "/") {
		f.At("file").At("path").Add("name a file, such as "+filepath.Join(c.File.Path, fileName), "%q is a folder", c.File.Path)
	}
	if strings.ContainsRune(c.File.Path, 0) {
		f.At("file").At("path").Add("", "the path contains a zero byte")
	}
}

const (
	fileName    = "doorward.db"
	systemState = "/var/lib/doorward"
)

// path returns the state file to use.
func (c FileConfig) path(getenv func(string) string) string {
	if c.Path != "" {
		return c.Path
	}
	// systemd separates several StateDirectory= entries by colons.
	dir, _, _ := strings.Cut(getenv("STATE_DIRECTORY"), ":")
	if dir == "" {
		dir = systemState
	}
	return filepath.Join(dir, fileName)
}

// Open opens the configured store. now is the clock that items expire by; nil
// means time.Now.
func Open(cfg Config, now func() time.Time) (Store, error) {
	if cfg.Memory {
		return NewMemory(now), nil
	}
	// Through variables: a nil *Redis or *File must not become a non-nil Store.
	if cfg.Redis != nil {
		r, err := OpenRedis(*cfg.Redis, now)
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	f, err := OpenFile(cfg.File.path(os.Getenv), now)
	if err != nil {
		return nil, err
	}
	return f, nil
}
