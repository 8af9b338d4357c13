package proxy

import "sync"

// tunnelCounts are the tunnels that are open. The zero value is ready.
type tunnelCounts struct {
	mu     sync.Mutex
	by, to map[string]int
}

// take counts one more, unless there are too many.
func (c *tunnelCounts) take(who, target string, limits *Tunnels) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by, c.to = map[string]int{}, map[string]int{}
	}
	if c.by[who] >= orDefault(limits.PerIdentity, defaultPerIdentity) || c.to[target] >= orDefault(limits.PerDestination, defaultPerDestination) {
		return false
	}
	c.by[who]++
	c.to[target]++
	return true
}

func (c *tunnelCounts) giveBack(who, target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for counts, key := range map[*map[string]int]string{&c.by: who, &c.to: target} {
		if (*counts)[key]--; (*counts)[key] <= 0 {
			delete(*counts, key)
		}
	}
}
