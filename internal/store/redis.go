package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// Redis is a Store on a Redis or Valkey server that several replicas share.
//
// One item is one hash: its version, its expiry and its value. Whatever changes
// an item is a script (redisscript.go), which the server runs as one step; it
// also writes the change into a log, from which every replica learns of it in
// order (redisfeed.go). All keys have one hash tag, so that in a cluster they
// lie on one node and a script may touch several.
//
// Items expire by this process's clock; the server's clock, with a minute to
// spare, only decides when the remains are cleared away. Reads go to the master
// and are never answered from memory here: what is kept in memory, and for how
// long it is true, is the affair of whoever watches.
//
// A change is as durable as the server makes it. Replication is asynchronous, so
// a failover may undo the last changes; watchers are told that something was
// lost then.
type Redis struct {
	client  rueidis.Client
	now     func() time.Time
	timeout time.Duration
	hub     hub
	feed    *feed

	items, head, log, index, expiry, alive string // the names of keys; items is a prefix

	closing atomic.Bool
	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// OpenRedis connects to the server. now is the clock that items expire by; nil
// means time.Now. Every error is ErrUnavailable and says what to do.
func OpenRedis(cfg RedisConfig, now func() time.Time) (*Redis, error) {
	if now == nil {
		now = time.Now
	}
	tag := "{" + cfg.prefix() + "}"
	r := &Redis{
		now: now, timeout: cfg.Timeout.Or(defaultTimeout),
		items: tag + "/", head: tag + ":head", log: tag + ":log", index: tag + ":index", expiry: tag + ":expiry", alive: tag + ":alive",
	}
	r.hub.close(errFeedStarts)
	r.feed = newFeed(r, cfg.Grace.Std())
	options, err := r.options(&cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if r.client, err = rueidis.NewClient(options); err != nil {
		return nil, fmt.Errorf("%w: redis %s: %w%s", ErrUnavailable, strings.Join(options.InitAddress, ","), err, redisCure(err))
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.stopped.Go(func() { r.feed.run(ctx) })
	return r, nil
}

func (r *Redis) options(cfg *RedisConfig) (rueidis.ClientOption, error) {
	address, err := parseRedisURL(cfg.URL.Reveal())
	if err != nil {
		return rueidis.ClientOption{}, fmt.Errorf("sessions.store.redis.url: %w", err)
	}
	options := rueidis.ClientOption{
		InitAddress: address.hosts,
		Username:    cmp.Or(address.username, cfg.Username),
		Password:    cmp.Or(address.password, cfg.Password.Reveal()),
		SelectDB:    address.database,
		ClientName:  "doorward", ClientSetInfo: rueidis.DisableClientSetInfo,
		Dialer: net.Dialer{Timeout: r.timeout, KeepAlive: time.Second},
		// A connection on which nothing comes back for this long is given up.
		ConnWriteTimeout: r.timeout,
		OnInvalidations:  r.feed.invalidated,
		RetryDelay:       retryDelay,
		// Only the head of the log is ever kept by the client.
		CacheSizeEachConn: 1 << 20,
		BlockingPoolSize:  8,
		ForceSingleClient: address.mode == redisSingle,
		Sentinel: rueidis.SentinelOption{
			MasterSet: address.master, Username: cfg.SentinelUsername, Password: cfg.SentinelPassword.Reveal(),
			Dialer: net.Dialer{Timeout: r.timeout, KeepAlive: time.Second}, TopologyRefreshInterval: 5 * time.Second,
		},
		ClusterOption: rueidis.ClusterOption{ShardsRefreshInterval: 5 * time.Second, MaxMovedRedirections: 8},
	}
	if address.mode != redisCluster {
		options.PipelineMultiplex = -1 // one connection: a cluster has one per node by itself
	}
	if address.tls {
		if options.TLSConfig, err = cfg.tls(); err != nil {
			return rueidis.ClientOption{}, err
		}
		options.Sentinel.TLSConfig = options.TLSConfig
	}
	return options, nil
}

// retryDelay lets a read that met a broken connection be tried on a new one, and
// lets it fail soon where there is none.
func retryDelay(attempts int, _ rueidis.Completed, _ error) time.Duration {
	if attempts > 3 {
		return -1
	}
	return time.Duration(attempts) * 20 * time.Millisecond
}

// Get implements Store.
func (r *Redis) Get(ctx context.Context, key string) (Item, error) {
	if err := checkKey(key); err != nil {
		return Item{}, err
	}
	var fields []rueidis.RedisMessage
	err := r.do(ctx, func(ctx context.Context) (err error) {
		fields, err = r.client.Do(ctx, r.client.B().Hmget().Key(r.items+key).Field("v", "x", "d").Build()).ToArray()
		return err
	})
	switch {
	case isWrongType(err):
		return Item{}, corrupt(key)
	case err != nil:
		return Item{}, r.failed(ctx, err)
	}
	item, err := redisItem(key, fields)
	if err == nil && item.expired(r.now()) {
		err = ErrNotFound
	}
	if err != nil {
		return Item{}, err
	}
	return item, nil
}

// redisItem reads the fields of a hash.
func redisItem(key string, fields []rueidis.RedisMessage) (Item, error) {
	var text [3]string
	missing := 0
	for i, field := range fields {
		if field.IsNil() {
			missing++
		} else if value, err := field.ToString(); err == nil && i < len(text) {
			text[i] = value
		}
	}
	if missing == len(text) {
		return Item{}, ErrNotFound
	}
	return parseItem(key, text[0], text[1], text[2])
}

// parseItem reads an item as the scripts write it: the version and, in
// microseconds since 1970, the expiry as decimal numbers.
func parseItem(key, version, expires, value string) (Item, error) {
	item := Item{Key: key}
	v, badVersion := strconv.ParseUint(version, 10, 64)
	x, badExpiry := strconv.ParseInt(expires, 10, 64)
	if badVersion != nil || badExpiry != nil {
		return item, corrupt(key)
	}
	item.Version, item.Value = v, []byte(value)
	if x != 0 {
		item.Expires = time.UnixMicro(x).UTC()
	}
	return item, nil
}

func corrupt(key string) error { return fmt.Errorf("%w: %q", ErrCorrupt, key) }

// Err returns nil while this replica learns of changes, and otherwise why not.
func (r *Redis) Err() error { return r.hub.err() }

// Watch implements Store. It fails while changes cannot be learned of.
func (r *Redis) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.closing.Load() {
		return nil, errClosed
	}
	if err := r.feed.started(ctx); err != nil {
		return nil, r.failed(ctx, err)
	}
	var head uint64
	err := r.do(ctx, func(ctx context.Context) (err error) {
		head, err = r.client.Do(ctx, r.client.B().Get().Key(r.head).Build()).AsUint64()
		if rueidis.IsRedisNil(err) {
			err = nil // nothing was ever written
		}
		return err
	})
	if err != nil {
		return nil, r.failed(ctx, err)
	}
	return r.hub.watch(ctx, prefix, head)
}

// Close implements Store.
func (r *Redis) Close() error {
	if r.closing.Swap(true) {
		return nil
	}
	r.stop()
	r.stopped.Wait()
	r.hub.close(errClosed)
	r.client.Close()
	return nil
}

// do runs one exchange with the server within the time a command may take.
func (r *Redis) do(ctx context.Context, exchange func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.closing.Load() {
		return errClosed
	}
	limited, cancel := context.WithTimeoutCause(ctx, r.timeout, errSilent)
	defer cancel()
	err := exchange(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w within %s", errSilent, r.timeout)
	}
	return err
}

var errSilent = errors.New("no answer")

// failed explains an error of do to the operator.
func (r *Redis) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case r.closing.Load(), errors.Is(err, rueidis.ErrClosing):
		return errClosed
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrCorrupt):
		return err
	}
	return fmt.Errorf("%w: redis: %w%s", ErrUnavailable, err, redisCure(err))
}

func isWrongType(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(e.Error(), "WRONGTYPE")
}

// redisCure says what to do about an answer of the server.
func redisCure(err error) string {
	text := err.Error()
	for _, c := range []struct{ sign, cure string }{
		{"NOAUTH", "it wants a password: set sessions.store.redis.password"},
		{"WRONGPASS", "check user and password"},
		{"NOPERM", "give the user the rights that docs/replicas.md lists"},
		{"OOM ", "it has no memory left: raise maxmemory"},
		{"READONLY", "it is no master any more: reach it through redis+sentinel:// or redis+cluster://"},
		{"NOREPLICAS", "it has lost its replicas, so it may not be the master any more: bring them back, or reach it through redis+sentinel://"},
		{"MISCONF", "it cannot write to its disk: make room there"},
		{"CLUSTERDOWN", "the cluster is incomplete: bring its nodes back"},
		{"unknown command 'HELLO'", "Redis 6.2 or later is needed"},
		{"x509:", "name its authority in sessions.store.redis.ca"},
		{"connection refused", "start it, or correct sessions.store.redis.url"},
	} {
		if strings.Contains(text, c.sign) {
			return " (" + c.cure + ")"
		}
	}
	return ""
}
