package session

import (
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// Config says how long people stay logged in and where that is kept.
type Config struct {
	// Store is where logins are kept. Default: one local file.
	Store store.Config `yaml:"store"`
	// Lifetime is how long after logging in a visitor has to log in again,
	// whatever they do meanwhile. Default 10h.
	Lifetime access.Duration `yaml:"lifetime"`
	// Idle is how long a visitor may pause before they have to log in again. It
	// cannot be longer than the lifetime. Default 1h, or the lifetime if that is
	// shorter.
	Idle access.Duration `yaml:"idle"`
	// Key is a secret of at least 32 bytes that seals logins on their way
	// through the browser. Default: one is made at the first start and kept in
	// the store. Several doorwards without a common store need a common key.
	Key access.Secret `yaml:"key"`
}

const (
	defaultLifetime = 10 * time.Hour
	defaultIdle     = time.Hour
	minKey          = 32
)

func (c Config) lifetime() time.Duration { return c.Lifetime.Or(defaultLifetime) }
func (c Config) idle() time.Duration     { return c.Idle.Or(min(defaultIdle, c.lifetime())) }

// Validate reports every mistake in the section.
func (c Config) Validate(f access.Faults) {
	c.Store.Validate(f.At("store"))
	if c.Lifetime < 0 {
		f.At("lifetime").Add("write 10h", "%s is negative", c.Lifetime)
	}
	if c.Idle < 0 {
		f.At("idle").Add("write 1h", "%s is negative", c.Idle)
	}
	if c.Idle > 0 && c.Lifetime >= 0 && c.idle() > c.lifetime() {
		f.At("idle").Add("make it shorter, or sessions.lifetime longer", "%s is longer than the lifetime of %s", c.idle(), c.lifetime())
	}
	// An empty value was not read yet, or could not be; whoever reads it says so.
	if n := len(c.Key.Reveal()); n > 0 && n < minKey {
		f.At("key").Add("make one with: openssl rand -base64 32", "the key has %d bytes, at least %d are needed", n, minKey)
	}
}
