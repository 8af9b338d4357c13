package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/doorward/doorward/internal/testidp"
)

// bench is a run: what all cases use.
type bench struct {
	ctx    context.Context
	root   string // of the source
	dir    string // everything that is written meanwhile
	length length
	say    func(format string, args ...any)

	proxyCore, loadCore int
	port                int // the last one tried

	self     string // this program
	doorward string // Doorward's
	cert     certificate
	backend  string // its address
	process  *process

	idp     *testidp.Provider
	issuer  string
	stopIDP func()
	tokens  map[string]string // paths of files with tokens, by algorithm
}

// newBench builds Doorward and starts what all participants talk to.
func newBench(ctx context.Context, root string, length length) (b *bench, err error) {
	b = &bench{ctx: ctx, root: root, length: length, tokens: map[string]string{}, say: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
	}}
	b.proxyCore, b.loadCore = cores()
	if b.dir, err = os.MkdirTemp("", "doorward-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	// Apache and nginx give up their rights, and read this folder all the same.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return nil, err
	}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	b.doorward = filepath.Join(b.dir, "doorward")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-pgo", "cmd/doorward/profile.pgo", "-o", b.doorward, "./cmd/doorward")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building doorward: %w\n%s", err, out)
	}
	if b.cert, err = newCertificate(b.dir); err != nil {
		return nil, err
	}
	if b.backend, err = b.freeAddress(); err != nil {
		return nil, err
	}
	if b.process, err = start(b.loadCore, b.dir, nil, b.self, "role", "backend", b.backend); err != nil {
		return nil, err
	}
	if err := b.process.listens(ctx, b.backend); err != nil {
		return nil, err
	}
	b.idp, err = testidp.New(testidp.Options{
		Users: []testidp.User{{Username: person, Password: "bench", Email: person + "@example.com", Name: "Alice Adams", Groups: []string{"group-0", "group-1"}}},
		Clients: []testidp.Client{{ID: "doorward", Secret: clientSecret, RedirectURI: func(string) bool { return true }},
			{ID: "apache", Secret: clientSecret, RedirectURI: func(string) bool { return true }},
			{ID: "oauth2-proxy", Secret: clientSecret, RedirectURI: func(string) bool { return true }}},
		AccessTokenLifetime: 12 * time.Hour, // no refresh comes in between
		SessionLifetime:     12 * time.Hour,
	})
	if err != nil {
		return nil, err
	}
	address, err := b.freeAddress()
	if err != nil {
		return nil, err
	}
	b.issuer, b.stopIDP, err = b.idp.Start(address)
	return b, err
}

const (
	person       = "alice"
	clientSecret = "a secret of the bench, which opens nothing"
)

// close ends everything that was started and removes what was written.
func (b *bench) close() {
	if b.process != nil {
		b.process.stop()
	}
	if b.stopIDP != nil {
		b.stopIDP()
	}
	os.RemoveAll(b.dir)
}

// measure runs a case. A case that needs a program that is not there is an
// empty table that says so.
func (b *bench) measure(c benchCase) (*table, error) {
	t, err := c.run(b)
	var absent *missing
	if errors.As(err, &absent) {
		return &table{Columns: []string{""}, Notes: []string{"skipped: " + absent.Error()}}, nil
	}
	if b.ctx.Err() != nil {
		return nil, context.Cause(b.ctx)
	}
	return t, err
}

// folder makes a folder for one program.
func (b *bench) folder(name string) (string, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}
