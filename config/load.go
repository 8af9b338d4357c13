package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// Config is a configuration without a mistake, ready to serve.
type Config struct {
	// File holds the decoded sections. Secrets are resolved and paths absolute.
	File
	// Path is the absolute path of the file.
	Path string
	// Version names this configuration in decisions and logs: the beginning of
	// the SHA-256 of the file, 12 hexadecimal digits. The secrets the file names
	// are not part of it: it stands in every audit event, and a hash of a secret
	// would let a reader of the log confirm a guess.
	Version string
	// Policy and Table are compiled from the sections.
	Policy *authz.Policy
	Table  *proxy.Table

	// where tells where the fields of File stand.
	where positions
	// stamps are the states of the files this configuration was made of.
	stamps stamps
}

// Load reads the configuration file at path, the secrets it names, and all that
// must be right before the first request. The error is of type Problems and
// lists every mistake; then there is no Config.
func Load(path string) (*Config, error) { return load(path, os.LookupEnv) }

// LoadText is Load for a text that is meant to stand in the file at path.
func LoadText(path string, text []byte) (*Config, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, Problems{{Text: "the file cannot be found: " + err.Error()}}
	}
	cfg, d, err := readText(absolute, text, newFileReader(absolute, os.LookupEnv))
	return cfg.completed(path, d, err)
}

func load(path string, env func(string) (string, bool)) (*Config, error) {
	cfg, d, err := read(path, env)
	return cfg.completed(path, d, err)
}

// completed completes a configuration that was read, unless that failed.
func (cfg *Config) completed(path string, d *decoder, err error) (*Config, error) {
	if err == nil {
		err = cfg.complete(d)
	}
	var problems Problems
	if errors.As(err, &problems) {
		return nil, problems.of(path)
	}
	return cfg, nil
}

// read decodes the file. What could not be decoded is in d.problems; the error,
// of type Problems, is for a file that cannot be decoded at all.
func read(path string, env func(string) (string, bool)) (*Config, *decoder, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, Problems{{Text: "the file cannot be found: " + err.Error()}}
	}
	files := newFileReader(absolute, env)
	text, err := readFile(absolute)
	if err != nil {
		return nil, nil, Problems{{Text: "the file cannot be read: " + cause(err).Error(), Cure: "name the configuration with --config FILE"}}
	}
	return readText(absolute, text, files)
}

func newFileReader(absolute string, env func(string) (string, bool)) *fileReader {
	return &fileReader{dir: filepath.Dir(absolute), env: env, named: stamps{absolute: stampOf(absolute)}}
}

func readText(absolute string, text []byte, files *fileReader) (*Config, *decoder, error) {
	root, problem := parse(text)
	if problem != nil {
		return nil, nil, Problems{*problem}
	}
	sum := sha256.Sum256(text)
	cfg := &Config{Path: absolute, Version: hex.EncodeToString(sum[:6]), stamps: files.named}
	d := &decoder{files: files}
	d.decode(root, &cfg.File)
	d.locate(&cfg.File)
	return cfg, d, nil
}

// readFile reads one byte more than a configuration may have, which parse
// refuses.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxFile+1))
}

// complete validates the decoded sections and compiles them. The error is of
// type Problems.
func (c *Config) complete(d *decoder) error {
	c.where = d.where
	f := access.NewFaults("")
	c.validate(f)
	crossCheck(&c.File, f)
	d.report(f.List())
	table, faults := proxy.NewTable(c.Routes)
	d.report(faults)
	c.Table = table
	// Where a whole section of names could not be read, every use of a name would
	// be reported as well.
	if !d.lost("groups") && !d.lost("providers") && !d.lost("devices.profiles") {
		policy, faults := authz.Compile(c.policyInput())
		d.report(faults)
		c.Policy = policy
	}
	if len(d.problems) == 0 {
		f := access.NewFaults("")
		for i := range c.Tests {
			c.checkTest(&c.Tests[i], f.At("tests[%d]", i))
		}
		d.report(f.List())
		placeTests(c.Tests, c.Path, d.where)
	}
	if len(d.problems) > 0 {
		return d.problems
	}
	return nil
}

// validate asks the owner of every section.
func (f *File) validate(at access.Faults) {
	if f.Version != 1 {
		at.At("version").Add("write version: 1", "this format has the version 1")
	}
	f.Server.Validate(at.At("server"))
	for i := range f.Providers {
		f.Providers[i].Validate(at.At("providers[%d]", i))
	}
	f.Sessions.Validate(at.At("sessions"))
	f.Devices.Validate(at.At("devices"))
	for i := range f.Signals {
		f.Signals[i].Validate(at.At("signals[%d]", i))
	}
	f.Audit.Validate(at.At("audit"))
	f.Log.Validate(at.At("log"))
	for i := range f.Accept {
		f.Accept[i].Validate(at.At("accept[%d]", i))
	}
	validateTests(f.Tests, at, map[string]*Test{})
}

// report turns the faults that one owner found into problems with a place. Left
// out is what follows from a mistake already reported, and what another owner
// has said of the same field.
func (d *decoder) report(faults []access.Fault) {
	said := maps.Clone(d.reported)
	for _, fault := range faults {
		if d.explains(fault.Path) || said[fault.Path] {
			continue
		}
		d.reported[fault.Path] = true
		d.add(d.where.find(fault.Path), fault.Path, fault.Cure, "%s", fault.Text)
	}
}

// namedFiles returns the configuration file and every file it names for
// reading, whether or not the configuration is good.
func namedFiles(path string) []string {
	cfg, _, err := read(path, os.LookupEnv)
	if err != nil {
		return []string{path}
	}
	return slices.Collect(maps.Keys(cfg.stamps))
}
