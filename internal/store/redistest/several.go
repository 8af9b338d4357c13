package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/store"
)

// Cluster is a cluster of three masters.
type Cluster struct{ Nodes []*Server }

// StartCluster runs a cluster.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{}
	for range 3 {
		c.Nodes = append(c.Nodes, Start(t, "--cluster-enabled", "yes", "--cluster-config-file", "nodes-PORT.conf",
			"--cluster-node-timeout", "5000", "--cluster-port", fmt.Sprint(freePort(t))))
	}
	for i, node := range c.Nodes {
		bus := node.Do("CONFIG", "GET", "cluster-port")
		_, bus, _ = strings.Cut(bus, "\n")
		node.Do("CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*5461), fmt.Sprint(min(16383, (i+1)*5461-1)+i/2))
		c.Nodes[0].Do("CLUSTER", "MEET", "127.0.0.1", node.port(), strings.TrimSpace(bus))
	}
	for _, node := range c.Nodes {
		node.await("cluster_state:ok", "CLUSTER", "INFO")
	}
	return c
}

// Config is how a store reaches the cluster.
func (c *Cluster) Config() store.RedisConfig { return Config("redis+cluster://" + c.Nodes[0].Addr) }

// Pair is a master and its replica.
type Pair struct{ Master, Replica *Server }

// StartPair runs the two.
func StartPair(t testing.TB) *Pair {
	t.Helper()
	p := &Pair{Master: Start(t, "--repl-diskless-sync-delay", "0")} // a replica need not wait for others
	p.Replica = Start(t, "--replicaof", "127.0.0.1 "+p.Master.port())
	p.Replica.await("master_link_status:up", "INFO", "replication")
	return p
}

// Sentinel is a master, its replica, and a sentinel that watches them.
type Sentinel struct {
	*Pair
	Sentinel *Server
}

// StartSentinel runs the three.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	s := &Sentinel{Pair: StartPair(t)}
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %s 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n", s.Master.port())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Sentinel = start(t, "redis-sentinel", []string{conf})
	s.Sentinel.await(s.Replica.port(), "SENTINEL", "replicas", "main")
	return s
}

// Config is how a store reaches the master.
func (s *Sentinel) Config() store.RedisConfig {
	return Config("redis+sentinel://" + s.Sentinel.Addr + "/main")
}

// KillMaster kills the master and waits until the replica took over.
func (s *Sentinel) KillMaster() {
	s.Master.t.Helper()
	s.Master.Kill()
	s.Replica.await("role:master", "INFO", "replication")
}
