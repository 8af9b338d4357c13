package store

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// redisMode is how several servers work together.
type redisMode string

const (
	redisSingle   redisMode = ""
	redisSentinel redisMode = "sentinel"
	redisCluster  redisMode = "cluster"
)

// redisAddress is what a URL says.
type redisAddress struct {
	mode               redisMode
	tls                bool
	username, password string
	hosts              []string // with ports; sentinels in that mode
	master             string   // as the sentinels name it
	database           int
}

// parseRedisURL reads the address of a server. It is done by hand, since a list
// of hosts is no URL for net/url. An error does not repeat the URL, which may
// hold a password.
func parseRedisURL(text string) (a redisAddress, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return a, errors.New("it is no URL")
	}
	family, mode, _ := strings.Cut(strings.ToLower(scheme), "+")
	a.mode = redisMode(mode)
	switch family {
	case "redis", "valkey":
	case "rediss", "valkeys":
		a.tls = true
	default:
		return a, fmt.Errorf("the scheme %.20q is not known", scheme)
	}
	if a.mode != redisSingle && a.mode != redisSentinel && a.mode != redisCluster {
		return a, fmt.Errorf("the scheme %.30q is not known; besides one server there are +sentinel and +cluster", scheme)
	}
	authority, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, _ := strings.Cut(authority[:at], ":")
		authority = authority[at+1:]
		var badUser, badPassword error
		a.username, badUser = url.PathUnescape(user)
		a.password, badPassword = url.PathUnescape(password)
		if badUser != nil || badPassword != nil {
			return a, errors.New("user or password is not percent-encoded")
		}
	}
	if strings.ContainsAny(authority+path, "?#") {
		return a, errors.New("it has a query or a fragment; whatever else there is to say has a key of its own")
	}
	for host := range strings.SplitSeq(authority, ",") {
		host, err := a.hostport(host)
		if err != nil {
			return a, err
		}
		a.hosts = append(a.hosts, host)
	}
	if a.mode == redisSingle && len(a.hosts) > 1 {
		return a, errors.New("it names several servers; write redis+sentinel:// or redis+cluster://")
	}
	return a, a.setPath(strings.TrimSuffix(path, "/"))
}

func (a *redisAddress) hostport(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), "6379"
		if a.mode == redisSentinel {
			port = "26379"
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" || strings.ContainsAny(host, " @[]") || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return "", errors.New("a server in it is not HOST or HOST:PORT")
	}
	return net.JoinHostPort(host, port), nil
}

func (a *redisAddress) setPath(path string) (err error) {
	database := path
	switch a.mode {
	case redisSentinel:
		a.master, database, _ = strings.Cut(path, "/")
		if a.master == "" {
			return errors.New("it does not name the master that the sentinels watch, as in redis+sentinel://host/mymaster")
		}
	case redisCluster:
		if path != "" {
			return errors.New("it names a database, and a cluster has only one")
		}
	}
	if database == "" {
		return nil
	}
	if a.database, err = strconv.Atoi(database); err != nil || a.database < 0 {
		return errors.New("what follows the server is not the number of a database")
	}
	return nil
}
