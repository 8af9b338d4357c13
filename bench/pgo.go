package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"time"

	"github.com/doorward/doorward/internal/serve"
)

// profileLoads are the requests that the compiler is to know of.
var profileLoads = []struct {
	door     door
	generate func(*bench) generator
}{
	{door{name: "session"}, func(b *bench) generator { return b.wrk }},
	{door{name: "sessions", sessions: 1000, rotation: 1000}, func(b *bench) generator { return b.wrk }},
	{door{name: "token", asks: forRS256}, func(b *bench) generator { return b.wrk }},
	{door{name: "public", asks: forNothing}, func(b *bench) generator { return b.wrk }},
	{door{name: "session over TLS and HTTP/2", tls: true}, func(b *bench) generator { return b.h2load }},
	{door{name: "session over TLS", tls: true}, func(b *bench) generator { return b.wrk }},
}

// writeProfile runs Doorward under each load and writes where it spends its time
// to a file, for go build -pgo.
func writeProfile(ctx context.Context, root, path string) error {
	b, err := newBench(ctx, root, length{rounds: 1, round: 24 * time.Second})
	if err != nil {
		return err
	}
	defer b.close()
	args := []string{"tool", "pprof", "-proto", "-output", path}
	for i, l := range profileLoads {
		b.say("%s", l.door.name)
		part := filepath.Join(b.dir, fmt.Sprintf("profile-%d", i))
		if err := b.profile(l.door, l.generate(b), part); err != nil {
			return fmt.Errorf("%s: %w", l.door.name, err)
		}
		args = append(args, part)
	}
	merge := exec.CommandContext(ctx, "go", args...)
	if out, err := merge.CombinedOutput(); err != nil {
		return fmt.Errorf("merging the profiles: %w\n%s", err, out)
	}
	return nil
}

func (b *bench) profile(d door, generate generator, path string) error {
	site, err := d.prepare(b)
	if err != nil {
		return err
	}
	p, err := start(b.proxyCore, site.dir, nil, b.self, "role", "profiled", site.config, path)
	if err != nil {
		return err
	}
	defer p.stop()
	s, err := b.ready(p, site.load)
	if err != nil {
		return err
	}
	if err := s.load.check(b.ctx); err != nil {
		return err
	}
	if _, err := generate(b.ctx, &s.load, b.length.round); err != nil {
		return fmt.Errorf("%w\n%s", err, p.out.String())
	}
	return nil
}

// serveProfiled serves as the program does, and writes a processor profile of it.
func serveProfiled(ctx context.Context, config, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return serve.Run(ctx, serve.Options{Config: config, Version: "profiled"})
}
