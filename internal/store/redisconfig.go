package store

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// RedisConfig says how a Redis or Valkey server is reached, and how long it may
// be silent.
type RedisConfig struct {
	// URL is the address, required. As it may hold a password it is a secret,
	// and each form also exists with `rediss` for TLS:
	// `redis://[user:password@]host[:port][/database]` for one server,
	// `redis+sentinel://host[:port],…/master[/database]` for the master that
	// these sentinels name, `redis+cluster://host[:port],…` for a cluster.
	// `valkey` and `valkeys` mean the same as `redis` and `rediss`.
	URL access.Secret `yaml:"url"`
	// Username is the name to log in with, if the URL has none.
	Username string `yaml:"username"`
	// Password belongs to the username, if the URL has none.
	Password access.Secret `yaml:"password"`
	// SentinelUsername is the name to log in to the sentinels with. Default:
	// they are asked without logging in.
	SentinelUsername string `yaml:"sentinel_username"`
	// SentinelPassword belongs to the sentinel's username.
	SentinelPassword access.Secret `yaml:"sentinel_password"`
	// CA is a PEM file with the certificate authorities to trust for the server
	// instead of the system's.
	CA string `yaml:"ca" doorward:"file"`
	// ClientCert is a PEM file with the certificate to present to the server.
	ClientCert string `yaml:"client_cert" doorward:"file"`
	// ClientKey belongs to ClientCert.
	ClientKey string `yaml:"client_key" doorward:"file"`
	// Prefix sets the keys of this Doorward apart from others on the same
	// server. All replicas must have the same one. Default `doorward`.
	Prefix string `yaml:"prefix"`
	// Timeout is how long one command may take. Default 2s.
	Timeout access.Duration `yaml:"timeout"`
	// Grace is how long sessions that are in memory go on while the server does
	// not answer. Meanwhile this replica does not learn of a session that another
	// one ends. Default: not at all, they are refused until the server answers.
	Grace access.Duration `yaml:"grace"`
}

const (
	defaultPrefix  = "doorward"
	defaultTimeout = 2 * time.Second
	maxTimeout     = 10 * time.Second
	maxGrace       = time.Hour
)

func (c *RedisConfig) prefix() string {
	if c.Prefix == "" {
		return defaultPrefix
	}
	return c.Prefix
}

// Validate reports every mistake in the section.
func (c *RedisConfig) Validate(f access.Faults) {
	var address redisAddress
	if c.URL.IsZero() {
		f.At("url").Add("write url: {env: REDIS_URL}, or {file: PATH}", "the address of the server is missing")
	} else if url := c.URL.Reveal(); url != "" { // else whoever reads it says so
		var err error
		if address, err = parseRedisURL(url); err != nil {
			f.At("url").Add("write redis://HOST:6379, or rediss:// for TLS", "%s", err)
		}
	}
	if address.password != "" && !c.Password.IsZero() {
		f.At("password").Add("remove one of the two", "there is a password here and in the url")
	}
	if !address.tls && address.hosts != nil && (c.CA != "" || c.ClientCert != "" || c.ClientKey != "") {
		f.At("url").Add("begin it with rediss", "there are certificates, but the url does not ask for TLS")
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		f.At("client_cert").Add("set both client_cert and client_key", "one of certificate and key is missing")
	}
	if strings.ContainsAny(c.Prefix, "{} \t\r\n") || len(c.Prefix) > 64 {
		f.At("prefix").Add("write a short word such as doorward", "the prefix is longer than 64 bytes or has blanks or braces")
	}
	if c.Timeout < 0 || c.Timeout.Std() > maxTimeout {
		f.At("timeout").Add("write 2s", "%s is not between 0 and %s", c.Timeout, maxTimeout)
	}
	if c.Grace < 0 || c.Grace.Std() > maxGrace {
		f.At("grace").Add("write 30s; it is how long a session that was ended elsewhere may go on here", "%s is not between 0 and %s", c.Grace, maxGrace)
	}
}

// tls returns how to speak TLS with the server.
func (c *RedisConfig) tls() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("sessions.store.redis.ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("sessions.store.redis.ca: %s holds no certificate", c.CA)
		}
	}
	if c.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("sessions.store.redis.client_cert: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
