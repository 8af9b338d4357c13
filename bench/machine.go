package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what a run was measured on.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, Linux %s, %s", m.CPU, m.Cores, m.Kernel, m.Go)
}

func thisMachine() machine {
	m := machine{CPU: "unknown processor", Cores: runtime.NumCPU(), Kernel: "unknown", Go: runtime.Version()}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = cpuModel(info, m.CPU)
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	return m
}

// cpuModel reads /proc/cpuinfo.
func cpuModel(info []byte, otherwise string) string {
	for lines := bufio.NewScanner(bytes.NewReader(info)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return otherwise
}

// cores returns a core for what is measured and one for the load, negative
// where there are not two that this process may use.
func cores() (proxy, load int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil || set.Count() < 2 {
		return -1, -1
	}
	if _, err := exec.LookPath("taskset"); err != nil {
		return -1, -1
	}
	proxy, load = -1, -1
	for i := 0; load < 0; i++ {
		switch {
		case !set.IsSet(i):
		case proxy < 0:
			proxy = i
		default:
			load = i
		}
	}
	return proxy, load
}

// stayingOn keeps this process, which does some of the loading itself, on a core
// until the function it returns is called.
func stayingOn(core int) (release func(), err error) {
	if core < 0 {
		return func() {}, nil
	}
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, err
	}
	one.Set(core)
	if err := moveThreads(&one); err != nil {
		return nil, err
	}
	return func() { moveThreads(&before) }, nil
}

// moveThreads moves all threads of this process; those they start later follow.
func moveThreads(to *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, to); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// moduleRoot finds the folder of the module that the working directory is in.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("start it in the source tree of Doorward")
		}
		dir = parent
	}
}

// occasion describes a measurement of some cases that is made now.
func (b *bench) occasion(chosen []benchCase) occasion {
	command := "make bench"
	if len(chosen) < len(cases) {
		ids := make([]string, len(chosen))
		for i, c := range chosen {
			ids[i] = c.id
		}
		command = "BENCH_CASES=" + strings.Join(ids, ",") + " " + command
	}
	if b.length.name != "short" {
		command = "BENCH=" + b.length.name + " " + command
	}
	commit := "an unknown commit"
	git := exec.Command("git", "describe", "--always", "--dirty", "--exclude=*")
	git.Dir = b.root
	if out, err := git.Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	return occasion{Date: time.Now().UTC().Format(time.DateOnly), Command: command, Commit: commit, Machine: thisMachine(), Pinned: b.proxyCore >= 0}
}
