package lane

import (
	"net/http"
	"sync/atomic"
	"time"
)

// clock knows the field Date, which is the same for a second.
type clock struct{ now atomic.Pointer[second] }

type second struct {
	unix int64
	text string
}

func (c *clock) date() string {
	now := time.Now()
	s := c.now.Load()
	if s == nil || s.unix != now.Unix() {
		s = &second{now.Unix(), now.UTC().Format(http.TimeFormat)}
		c.now.Store(s)
	}
	return s.text
}
