package audit

import (
	"cmp"
	"path/filepath"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit/format"
	"github.com/doorward/doorward/internal/audit/send"
)

// Config is the section `audit` of the configuration file.
type Config struct {
	// To lists where audit events are written, each as one line of JSON. Every
	// entry gets all events. Default: standard output.
	To []Sink `yaml:"to"`
	// Required refuses every request while events cannot be written, so that no
	// access goes unrecorded. Default false: requests pass, events wait in a
	// bounded queue, and what does not fit is counted and logged.
	Required bool `yaml:"required"`
	// Key is a secret of at least 32 bytes. With it the audit files are signed, so
	// that nobody without it can make a file that `doorward verify-log` accepts
	// (`doorward audit public-key` prints what to verify with). Default: files are
	// chained, not signed.
	Key access.Secret `yaml:"key"`
	// PseudonymPeriod is for how long the same person has the same pseudonym, where an
	// entry of `to` has `privacy: pseudonyms`. At least 1h. Default 30d.
	PseudonymPeriod access.Duration `yaml:"pseudonym_period"`
}

// minKey is the length of the shortest audit.key in bytes.
const minKey = 32

// Sink is one place audit events are written to: `{stdout: true}`,
// `{file: {path: /var/log/doorward/audit.jsonl}}`, or a receiver elsewhere with
// a spool.
type Sink struct {
	// Stdout writes events to standard output.
	Stdout bool `yaml:"stdout"`
	// File appends events to a file.
	File FileSink `yaml:"file"`

	send.To `yaml:",inline"`

	// Format is what events look like: `native` (the default), `ocsf` (Open
	// Cybersecurity Schema Framework 1.3.0) or `ecs` (Elastic Common Schema).
	// Files are always native, since the commands that read them understand
	// nothing else.
	Format string `yaml:"format"`
	// Privacy with the value `pseudonyms` replaces whatever tells who somebody is by
	// keyed pseudonyms, which `doorward audit who` resolves. It needs audit.key. Such
	// events cannot be replayed. Default: events are complete.
	Privacy string `yaml:"privacy"`
	// Spool is where events wait for a receiver elsewhere. Required for those.
	Spool SpoolConfig `yaml:"spool"`
}

// plain reports whether events are written as they are.
func (s *Sink) plain() bool { return s.Format == "" || s.Format == format.Native }

// SpoolConfig is a folder where events wait until their receiver has them, over
// restarts.
type SpoolConfig struct {
	// Dir is the folder; it is created with permissions 0700. Every receiver and
	// every replica needs its own.
	Dir string `yaml:"dir"`
	// MaxSizeMiB is how much may wait. Default 1024, at least 16.
	MaxSizeMiB int `yaml:"max_size_mib"`
	// WhenFull says what happens then: `block` (the default) keeps what is there,
	// and the sink counts as one that cannot be written, so that requests are
	// refused where the audit log is required; `drop-oldest` deletes the oldest
	// events, counts them and admits it in the log.
	WhenFull string `yaml:"when_full"`
}

// What a spool does when it is full.
const (
	block      = "block"
	dropOldest = "drop-oldest"

	minSpoolMiB = 16
)

func (c *SpoolConfig) max() int64 { return int64(cmp.Or(c.MaxSizeMiB, 1024)) << 20 }

func (c *SpoolConfig) validate(f access.Faults) {
	if c.Dir == "" {
		f.At("dir").Add("write spool: {dir: /var/lib/doorward/spool-NAME}", "events for a receiver elsewhere need a folder to wait in")
	}
	if c.MaxSizeMiB != 0 && c.MaxSizeMiB < minSpoolMiB {
		f.At("max_size_mib").Add("write at least 16", "%d MiB are too few", c.MaxSizeMiB)
	}
	if c.WhenFull != "" && c.WhenFull != block && c.WhenFull != dropOldest {
		f.At("when_full").Add("write block or drop-oldest", "%q is neither", c.WhenFull)
	}
}

// FileSink is a file audit events are appended to.
type FileSink struct {
	// Path names the file, such as `/var/log/doorward/audit.jsonl`. It is
	// created with permissions 0600 if it does not exist; its directory must
	// exist. A symbolic link is refused. SIGHUP opens it again, for logrotate.
	Path string `yaml:"path"`
	// MaxSizeMiB rotates the file before it grows larger than so many MiB: it is
	// renamed to PATH.TIME. Default: it is not rotated for its size.
	MaxSizeMiB int `yaml:"max_size_mib"`
	// MaxAge rotates the file when its first event is older than this, at the
	// next event. Default: it is not rotated for its age.
	MaxAge access.Duration `yaml:"max_age"`
	// Compress has rotated files compressed with gzip. Default false.
	Compress bool `yaml:"compress"`
	// Keep is how many rotated files are kept; older ones are deleted, which is
	// logged. Default: all.
	Keep int `yaml:"keep"`
	// KeepFor is how long rotated files are kept; older ones are deleted, which is
	// logged. Default: for ever.
	KeepFor access.Duration `yaml:"keep_for"`
}

func (s *FileSink) validate(f access.Faults) {
	if s.MaxSizeMiB < 0 {
		f.At("max_size_mib").Add("write a number such as 100, or leave it out", "the largest size cannot be negative")
	}
	if s.Keep < 0 {
		f.At("keep").Add("write a number such as 30, or leave it out", "the number of files cannot be negative")
	}
	if s.MaxAge != 0 && s.MaxAge.Std() < time.Minute {
		f.At("max_age").Add("write a minute or more, such as 24h", "files of %s would be too many", s.MaxAge)
	}
}

// Validate reports every mistake in the section.
func (c *Config) Validate(f access.Faults) {
	if !c.Key.IsZero() && len(c.Key.Reveal()) < minKey {
		f.At("key").Add("make one with: openssl rand -base64 33", "the key has less than %d bytes", minKey)
	}
	if p := c.PseudonymPeriod; p != 0 && p.Std() < time.Hour {
		f.At("pseudonym_period").Add("write 30d", "%s is shorter than 1h", p)
	}
	seen, spools := map[string]int{}, map[string]int{}
	for i := range c.To {
		at, sink := f.At("to[%d]", i), &c.To[i]
		switch {
		case sink.Privacy == privacyPseudonyms && c.Key.IsZero():
			at.At("privacy").Add("set audit.key", "pseudonyms are made with a key")
		case sink.Privacy != "" && sink.Privacy != privacyPseudonyms:
			at.At("privacy").Add("write pseudonyms, or leave it out", "%q is no kind of privacy", sink.Privacy)
		}
		key := sink.validate(at)
		if key == "" {
			continue
		}
		if first, twice := seen[key]; twice {
			at.Add("remove one of them", "%s is already written by to[%d]", key, first)
			continue
		}
		seen[key] = i
		if dir := sink.Spool.Dir; dir != "" {
			dir = filepath.Clean(dir)
			if first, twice := spools[dir]; twice {
				at.At("spool.dir").Add("give each receiver a folder of its own", "to[%d] uses the same folder", first)
			}
			spools[dir] = i
		}
	}
}

// validate returns what the entry writes to, empty if that is not clear.
func (s *Sink) validate(f access.Faults) (key string) {
	if !format.Known(s.Format) {
		f.At("format").Add("write native, ocsf or ecs", "%q is no format", s.Format)
	}
	remote := s.To.Count()
	local := 0
	if s.Stdout {
		key = "stdout"
		local++
	}
	if s.File.Path != "" {
		key = filepath.Clean(s.File.Path)
		local++
	}
	switch {
	case local+remote == 0:
		f.Add("write {stdout: true}, {file: {path: FILE}}, or a receiver such as {syslog: {address: HOST:6514}, spool: {dir: DIR}}", "the entry names nothing to write to")
		return ""
	case local+remote > 1:
		f.Add("write one entry for each", "one entry names several places")
		return ""
	case remote == 1:
		s.To.Validate(f)
		s.Spool.validate(f.At("spool"))
		return s.To.Name()
	}
	if s.Spool != (SpoolConfig{}) {
		f.At("spool").Add("remove it", "only receivers elsewhere have a spool")
	}
	if s.File.Path != "" {
		s.File.validate(f.At("file"))
		if !s.plain() {
			f.At("format").Add("remove it, or write another entry", "files are native, so that replay and explain can read them")
		}
	}
	return key
}
