package access

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestLevelsIncludeTheWeakerOnes(t *testing.T) {
	order := []string{"aal1", "mfa", "phr", "phrh"}
	for i, have := range order {
		for j, want := range order {
			for name, login := range map[string]Login{"translated": {Levels: LevelsUpTo(have)}, "by hand": {ACR: have}} {
				if got := login.Reaches(want); got != (i >= j) {
					t.Errorf("%s: %s reaches %s: %v", name, have, want, got)
				}
			}
		}
	}
	var nobody Login
	for _, name := range append(LevelNames(), "", "c1") {
		if nobody.Reaches(name) {
			t.Errorf("no login reaches %q", name)
		}
	}
	if !(&Login{ACR: "aal2"}).Reaches("mfa") || !(&Login{ACR: "gold"}).Reaches("gold") || (&Login{ACR: "gold"}).Reaches("Gold") {
		t.Error("synonyms or own classes are judged wrongly")
	}
	// A provider's table outranks what the class happens to be called.
	if (&Login{ACR: "phr", Levels: LevelsUpTo("aal1")}).Reaches("phr") {
		t.Error("a class counts although the table does not list it")
	}
}

func TestMissingNamesEveryPart(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ask := &LoginRequire{ACR: []string{"mfa"}, AMR: []string{"hwk"}, MaxAge: Duration(time.Minute), PhishingResistant: true}
	all := []Reason{ACRInsufficient, PhishingResistantNeeded, AMRInsufficient, LoginTooOld}
	if got := (&Login{}).Missing(ask, now); !slices.Equal(got, all) {
		t.Errorf("missing %v", got)
	}
	good := Login{ACR: "phr", AMR: []string{"hwk"}, Time: now.Add(-time.Minute)}
	if got := good.Missing(ask, now); got != nil {
		t.Errorf("missing %v", got)
	}
	good.Time = now.Add(loginSlack + time.Second)
	if good.Satisfies(ask, now) {
		t.Error("a login in the future counts")
	}
	for _, reason := range all {
		if !reason.CuredByLogin() {
			t.Errorf("%s is not cured by a login", reason)
		}
	}
	if (LoginRequire{PhishingResistant: true}).IsZero() {
		t.Error("phishing resistance is nothing")
	}
}

func TestDemandsAreJoined(t *testing.T) {
	for _, c := range []struct{ a, b, want, classes string }{
		{"", "mfa", "[mfa]", "[mfa]"},
		{"mfa", "phr", "[phr]", "[phr]"},
		{"phr", "mfa", "[phr]", "[phr]"},
		{"mfa", "aal2", "[mfa]", "[mfa]"},
		{"c1", "phr", "[phr]", "[phr]"},
		{"mfa", "+", "[mfa]", "[phr phrh]"},
		{"phrh", "+", "[phrh]", "[phrh]"},
		{"c1", "+", "[c1]", "[c1]"},
	} {
		demand := func(s string) LoginRequire {
			switch s {
			case "":
				return LoginRequire{}
			case "+":
				return LoginRequire{PhishingResistant: true}
			}
			return LoginRequire{ACR: []string{s}}
		}
		both := demand(c.a).And(demand(c.b))
		if fmt.Sprint(both.ACR) != c.want || fmt.Sprint(both.Classes()) != c.classes {
			t.Errorf("%s and %s: %v, asked for as %v", c.a, c.b, both.ACR, both.Classes())
		}
	}
	if Compatible([]string{"gold"}, []string{"mfa"}) || !Compatible([]string{"aal1"}, []string{"phrh"}) || !Compatible(nil, []string{"gold"}) {
		t.Error("compatible")
	}
}
