package audit

import (
	"path/filepath"

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
}

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
}

// Validate reports every mistake in the section.
func (c *Config) Validate(f access.Faults) {
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
