package serve

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// candidate keeps the configuration that is decided with and not enforced
// (`shadow`) loaded. One with a mistake is switched off and reported; nothing
// about it touches the configuration in force.
type candidate struct {
	live *live

	mu   sync.Mutex // held while it is replaced
	path string     // empty: there is none
	stop context.CancelFunc

	now sync.Mutex
	// version is that of the candidate that is loaded, failure why none is.
	version, failure string
}

// follow takes the candidate that a configuration names, or that the command
// line names instead, and watches its files.
func (c *candidate) follow(ctx context.Context, cfg *config.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path := c.live.opts.Shadow
	if path == "" && cfg.Shadow != "" {
		path = cfg.Shadow
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(cfg.Path), path)
		}
	}
	if path == c.path {
		return
	}
	if c.stop != nil {
		c.stop()
	}
	c.path, c.stop = path, nil
	if path == "" {
		c.put("", nil, nil)
		return
	}
	// The state of the files is noted before they are read, so that no change
	// falls between the two.
	seen := config.Unread(path)
	c.load(path)
	watching, stop := context.WithCancel(ctx)
	c.stop = stop
	go func() {
		err := config.Watch(watching, seen, config.WatchOptions{Log: c.live.log}, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if watching.Err() == nil { // another path may have taken over meanwhile
				c.load(path)
			}
		})
		if err != nil {
			c.live.log.Error("changes of the candidate are not noticed; restart to load it again", "error", err)
		}
	}()
}

func (c *candidate) load(path string) {
	cfg, err := config.Load(path)
	c.put(path, cfg, err)
}

// put switches the candidate, and says so. With neither cfg nor err there is no
// candidate any more.
func (c *candidate) put(path string, cfg *config.Config, err error) {
	event := &access.Event{Kind: access.EventConfig, Time: time.Now(), Reason: access.Allowed}
	version, failure := "", ""
	switch {
	case err != nil:
		c.live.door.SetCandidate(nil)
		failure = err.Error()
		event.Reason, event.Note = access.InternalError, "the candidate configuration was not loaded; none is decided with"
		c.live.log.Error("the candidate was not loaded; none is decided with", "path", path, "error", err)
	case cfg != nil:
		c.live.door.SetCandidate(&proxy.Candidate{Routes: cfg.Table, Policy: cfg.Policy})
		version = cfg.Version
		event.Note = "candidate configuration " + version + " is decided with, and not enforced"
		c.live.log.Info("candidate loaded", "path", path, "version", version, "routes", len(cfg.Routes))
	default:
		c.live.door.SetCandidate(nil)
		event.Note = "no candidate configuration is decided with any more"
		c.live.log.Info("candidate removed")
	}
	c.live.metrics.Candidate(version, err)
	c.now.Lock()
	c.version, c.failure = version, failure
	c.now.Unlock()
	c.live.records.tally.Restart()
	c.live.records.Record(event)
}

// state returns the version of the candidate that is loaded, or why none is;
// neither without a candidate.
func (c *candidate) state() (version, failure string) {
	c.now.Lock()
	defer c.now.Unlock()
	return c.version, c.failure
}

// status is what the admin listener shows of it; nil without a candidate.
func (c *candidate) status() any {
	switch version, failure := c.state(); {
	case failure != "":
		return map[string]string{"error": failure}
	case version != "":
		return map[string]string{"config": version}
	}
	return nil
}
