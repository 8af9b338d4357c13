package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test's own binary play the roles that bench starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "role" {
		if err := play(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// needs skips a test without a program, or fails it where everything has to be there.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := find(program, program); err != nil {
		if os.Getenv("DOORWARD_REQUIRE_PARTS") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// A very short run of one comparison with everything real: the backend, the
// binary, wrk and /proc. It looks at no speed.
func TestOneCase(t *testing.T) {
	needs(t, "wrk")
	t.Setenv("DOORWARD_BASE", "")
	t.Setenv("OAUTH2_PROXY", "")
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBench(t.Context(), root, length{name: "smoke", rounds: 1, round: time.Second, sessions: 100, idle: 20})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	b.say = func(format string, args ...any) { t.Logf(format, args...) }
	list := append(door{name: "Doorward, one session"}.participants(),
		door{name: "Doorward, 50 sessions in rotation", sessions: 60, rotation: 50}.participants()...)
	list = append(list, bareServer(false, smallPath, smallSize), oauth2ProxyServer())
	results, err := b.compare(list, b.wrk)
	if err != nil {
		t.Fatal(err)
	}
	table := loadTable(results, bare+", no check")
	t.Log("\n" + table.text())
	if len(table.Rows) != 3 || table.Rows[2][0] != bare+", no check" || table.Rows[2][7] != "1.00" {
		t.Errorf("%q", table.Rows)
	}
	if len(table.Notes) != 1 || !strings.Contains(table.Notes[0], "OAUTH2_PROXY") {
		t.Errorf("an absent peer is not named: %q", table.Notes)
	}
	for _, m := range results[:3] {
		if r := m.rounds[0]; r.requests == 0 || r.cpu == 0 || m.memory == 0 {
			t.Errorf("%s: %+v", m.name, m)
		}
	}
	for name, greet := range map[string]greeting{"keep-alive": askOnce, "WebSocket": upgradeOnce} {
		if c, err := b.crowd(list[0], greet, 0); err != nil || c.before == 0 || c.after == 0 {
			t.Errorf("%s: %+v %v", name, c, err)
		}
	}
	t.Run("HAProxy takes only its tokens", func(t *testing.T) { takesOnlyItsTokens(t, b) })
}

// takesOnlyItsTokens wants HAProxy to refuse what Doorward would refuse: a
// reference that lets everything pass is fast, too.
func takesOnlyItsTokens(t *testing.T, b *bench) {
	needs(t, "haproxy")
	s, err := haproxyAccepting("RS256").start(b)
	if err != nil {
		t.Fatal(err)
	}
	defer s.process.stop()
	if err := s.load.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	claims := func(change map[string]any) map[string]any {
		all := map[string]any{"iss": b.issuer, "aud": audience, "sub": "batch", "exp": time.Now().Add(time.Hour).Unix()}
		maps.Copy(all, change)
		return all
	}
	for name, c := range map[string]struct {
		claims map[string]any
		spoil  bool
		want   bool
	}{
		"a token":             {claims: claims(nil), want: true},
		"expired":             {claims: claims(map[string]any{"exp": time.Now().Unix() - 60})},
		"without expiry":      {claims: claims(map[string]any{"exp": nil})},
		"of another issuer":   {claims: claims(map[string]any{"iss": "https://elsewhere.example.com"})},
		"for another service": {claims: claims(map[string]any{"aud": "payroll"})},
		"changed":             {claims: claims(nil), spoil: true},
	} {
		if err := b.idp.SignWith("RS256"); err != nil {
			t.Fatal(err)
		}
		token, err := b.idp.Sign(b.idp.Header(), c.claims)
		if err != nil {
			t.Fatal(err)
		}
		if c.spoil {
			at := strings.LastIndexByte(token, '.') + 10
			other := byte('A')
			if token[at] == other {
				other = 'B'
			}
			token = token[:at] + string(other) + token[at+1:]
		}
		l := s.load
		l.header = bearer(token)
		if err := l.check(t.Context()); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A participant whose answers are not what is asked for does not take part: a
// login page is answered fast, too.
func TestARefusalIsNoFigure(t *testing.T) {
	address := "127.0.0.1:1" // nobody
	l := load{scheme: "http", address: address, host: "app.localhost", path: "/", size: 1}
	if err := l.check(t.Context()); err == nil {
		t.Error("nobody answers, and that is well")
	}
	if _, err := parseWrk([]byte(`{"requests":10,"duration":1,"bytes":2000,"errors":0,"refused":0,"p50":1,"p99":1}`), 1024); err == nil {
		t.Error("answers of 200 bytes are taken for a KiB")
	}
	if _, err := parseWrk([]byte(`{"requests":10,"duration":1,"bytes":20000,"errors":0,"refused":1,"p50":1,"p99":1}`), 1024); err == nil {
		t.Error("a refusal is taken for an answer")
	}
}

func TestChoosingCases(t *testing.T) {
	all, err := choose("")
	if err != nil || len(all) == 0 || slices.ContainsFunc(all, func(c benchCase) bool { return c.onRequest }) {
		t.Errorf("%d cases, %v", len(all), err)
	}
	if study, err := choose("study"); err != nil || len(study) != 1 || !study[0].onRequest {
		t.Errorf("%v, %v", study, err)
	}
	some, err := choose("idle, http1")
	if err != nil || len(some) != 2 || some[0].id != "idle" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := choose("http9"); err == nil || !strings.Contains(err.Error(), "http1") {
		t.Errorf("a case that does not exist: %v", err)
	}
	if _, err := lengthOf("endless"); err == nil {
		t.Error("an unknown length")
	}
	for _, name := range []string{"", "short", "long"} {
		l, err := lengthOf(name)
		if half := l.round / 2; err != nil || half <= 0 || half%time.Second != 0 || l.lead%time.Second != 0 {
			t.Errorf("%q: half a round is %s and its lead %s, %v; the loads take whole seconds", name, half, l.lead, err)
		}
	}
}

// Whatever is started ends, also what does not listen.
func TestProgramsEnd(t *testing.T) {
	if _, err := exec.LookPath("sleep"); err != nil {
		t.Skip(err)
	}
	p, err := start(-1, t.TempDir(), nil, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	if p.cmd.ProcessState == nil || p.cmd.ProcessState.Success() {
		t.Errorf("%v", p.cmd.ProcessState)
	}
	if err := p.listens(t.Context(), "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "ended at once") {
		t.Errorf("%v", err)
	}
	var absent *missing
	if _, err := find("no such program", "no-such-package"); !errors.As(err, &absent) || !strings.Contains(err.Error(), "apt-get install no-such-package") {
		t.Errorf("%v", err)
	}
}
