package audit

import (
	"path/filepath"
	"time"

	"github.com/doorward/doorward/internal/access"
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
	// (`doorward audit public-key` prints what to verify with), and names can be
	// exported as pseudonyms. Default: files are chained, not signed.
	Key access.Secret `yaml:"key"`
}

// minKey is the length of the shortest audit.key in bytes.
const minKey = 32

// Sink is one place audit events are written to: `{stdout: true}` or
// `{file: {path: /var/log/doorward/audit.jsonl}}`.
type Sink struct {
	// Stdout writes events to standard output.
	Stdout bool `yaml:"stdout"`
	// File appends events to a file.
	File FileSink `yaml:"file"`
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
	seen := map[string]int{}
	for i, sink := range c.To {
		at := f.At("to[%d]", i)
		key := "stdout"
		switch {
		case sink.Stdout && sink.File.Path != "":
			at.Add("write one entry for each", "one entry names both stdout and a file")
			continue
		case sink.File.Path != "":
			key = filepath.Clean(sink.File.Path)
			sink.File.validate(at.At("file"))
		case !sink.Stdout:
			at.Add("write {stdout: true} or {file: {path: FILE}}", "the entry names neither stdout nor a file")
			continue
		}
		if first, twice := seen[key]; twice {
			at.Add("remove one of them", "%s is already written by to[%d]", key, first)
			continue
		}
		seen[key] = i
	}
}
