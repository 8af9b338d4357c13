package config

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// Test is one entry of `tests`: a request of somebody imagined, and what the
// policy has to say to it. Inventories, sessions and clocks play no part in it.
type Test struct {
	// Name says what the test shows, in words: `byod is refused`. Required, unique.
	Name string `yaml:"name"`
	// As is who asks: `nobody`, or `{provider: corp, groups: [eng]}`. Default: nobody.
	As access.Someone `yaml:"as"`
	// Device is what they use: `none`, `unknown`, `silent`, the name of a profile
	// for a device that just passes it, or facts. Default: none.
	Device access.SomeDevice `yaml:"device"`

	// Get is the URL they ask for, with GET. Exactly one URL is required.
	Get string `yaml:"get"`
	// Head is the URL they ask for, with HEAD.
	Head string `yaml:"head"`
	// Post is the URL they ask for, with POST.
	Post string `yaml:"post"`
	// Put is the URL they ask for, with PUT.
	Put string `yaml:"put"`
	// Patch is the URL they ask for, with PATCH.
	Patch string `yaml:"patch"`
	// Delete is the URL they ask for, with DELETE.
	Delete string `yaml:"delete"`
	// Connect is the tunnel they ask for: `tcp://build.corp.example.com:22`.
	Connect string `yaml:"connect"`
	// URL is what they ask for with another method, together with `method`.
	URL string `yaml:"url"`
	// Method belongs to `url`. Default GET.
	Method string `yaml:"method"`

	// At is when they ask, as in `2026-11-23T09:00:00+01:00`. Default: noon UTC on
	// Wednesday, 7 January 2026. A test never says something else at night.
	At Instant `yaml:"at"`
	// From is the address they come from. Default 127.0.0.1.
	From string `yaml:"from"`

	// Expect is what the policy has to say. Required.
	Expect Expectation `yaml:"expect"`
	// Rule is the rule that has to decide: `allow/engineers-read` or its name
	// alone. Default: any.
	Rule string `yaml:"rule"`
	// Missing is what has to stand in the way: `device`, `device.PROFILE`,
	// `login`, `login.acr`, `login.amr`, `login.max_age`,
	// `login.phishing_resistant`, or the key of the nearest allow rule that does
	// not match, such as `groups`. With a device missing, `deny` stands for the
	// refusal that no login changes. Default: anything.
	Missing string `yaml:"missing"`
	// Reason is the reason that has to be given, such as `not_allowed`. Default: any.
	Reason string `yaml:"reason"`
	// Message is what a deny rule has to tell the visitor. Default: anything.
	Message string `yaml:"message"`

	// file, line and column are where the test stands.
	file         string
	line, column int
}

// Expectation is what a test expects of the policy.
type Expectation string

// What a test may expect.
const (
	ExpectAllow     Expectation = "allow"
	ExpectChallenge Expectation = "challenge"
	ExpectDeny      Expectation = "deny"
)

// testTime is when imagined requests are made: at noon on a working day.
var testTime = time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)

// Instant is a point in time, written as RFC 3339 does.
type Instant time.Time

// UnmarshalText reads one.
func (i *Instant) UnmarshalText(text []byte) error {
	at, err := time.Parse(time.RFC3339, string(text))
	if err != nil {
		return fmt.Errorf("%.40q is no instant: write 2026-11-23T09:00:00+01:00", text)
	}
	*i = Instant(at)
	return nil
}

// Place returns the file, line and column of the test.
func (t *Test) Place() (file string, line, column int) { return t.file, t.line, t.column }

// targets returns the URLs that the test names, by method.
func (t *Test) targets() map[string]string {
	all := map[string]string{
		http.MethodGet: t.Get, http.MethodHead: t.Head, http.MethodPost: t.Post, http.MethodPut: t.Put,
		http.MethodPatch: t.Patch, http.MethodDelete: t.Delete,
		http.MethodConnect: t.Connect,
	}
	for method, target := range all {
		if target == "" {
			delete(all, method)
		}
	}
	return all
}

// Target returns the method and the URL that are asked for.
func (t *Test) Target() (method, target string) {
	if t.URL != "" {
		if t.Method == "" {
			return http.MethodGet, t.URL
		}
		return t.Method, t.URL
	}
	for method, target := range t.targets() {
		return method, target
	}
	return "", ""
}

// when returns the instant of the test.
func (t *Test) when() time.Time {
	if at := time.Time(t.At); !at.IsZero() {
		return at
	}
	return testTime
}

// Validate reports every mistake that the test alone shows.
func (t *Test) Validate(f access.Faults) {
	if t.Name == "" {
		f.At("name").Add("say what the test shows", "the test has no name")
	}
	switch n := len(t.targets()); {
	case n+min(1, len(t.URL)) == 0:
		f.Add("add get: https://app.example.com/", "the test asks for nothing")
	case n+min(1, len(t.URL)) > 1:
		f.Add("write a test for each", "the test asks for several things")
	}
	if t.Connect != "" && !strings.HasPrefix(t.Connect, "tcp:") {
		f.At("connect").Add("write tcp://build.corp.example.com:22", "%q is no address of a tunnel", t.Connect)
	}
	if t.Method != "" && t.URL == "" {
		f.At("method").Add("write url instead of get", "method belongs to url")
	}
	if t.From != "" {
		checkAddress(t.From, f.At("from"))
		if t.As.IP != "" {
			f.At("from").Add("remove one of them", "as.ip says where they come from, too")
		}
	}
	expectations := []string{string(ExpectAllow), string(ExpectChallenge), string(ExpectDeny)}
	if !slices.Contains(expectations, string(t.Expect)) {
		_, cure := didYouMean(string(t.Expect), expectations)
		f.At("expect").Add(cure, "%q is nothing a policy says", string(t.Expect))
	}
	if t.Reason != "" && !access.Reason(t.Reason).Known() {
		_, cure := didYouMean(t.Reason, reasonWords())
		f.At("reason").Add(cure, "unknown reason %q", t.Reason)
	}
	if t.Expect == ExpectAllow && t.Missing != "" {
		f.At("missing").Add("remove it", "nothing is missing where the request is allowed")
	}
	if t.Expect != ExpectDeny && t.Message != "" {
		f.At("message").Add("remove it", "only a deny rule has a message")
	}
}

func reasonWords() (words []string) {
	for _, reason := range access.Reasons() {
		words = append(words, string(reason))
	}
	return words
}

// loginWords are what may be missing of a login, and the reasons that tell.
var loginWords = map[string]access.Reason{
	"login.acr": access.ACRInsufficient, "login.amr": access.AMRInsufficient,
	"login.max_age": access.LoginTooOld, "login.phishing_resistant": access.PhishingResistantNeeded,
}

// conditionWords are the keys of a rule that may not match.
var conditionWords = []string{"kind", "any_user", "groups", "users", "providers", "service_accounts", "spiffe", "client_ids", "scopes",
	"methods", "paths", "networks", "time", "when", "unless"}

// checkTest reports what in a test does not fit this configuration.
func (c *Config) checkTest(t *Test, f access.Faults) {
	c.checkSomeone(&t.As, f.At("as"))
	c.checkDevice(&t.Device, f.At("device"))
	c.checkMissing(t.Missing, f.At("missing"))
	_, text := t.Target()
	if text == "" || len(t.targets()) > 1 {
		return
	}
	key := "url"
	for method := range t.targets() {
		key = strings.ToLower(method)
	}
	req, err := c.ask(t)
	switch reason, refused := refusal(err); {
	case refused && t.Reason == "":
		f.At("%s", key).Add("correct it, or add reason: "+string(reason)+" if that is what the test is about", "%q is refused before any policy is asked: %v", text, err)
		return
	case refused:
		return
	case err != nil:
		f.At("%s", key).Add("write https://app.example.com/path", "%q: %v", text, err)
		return
	}
	if req.Route == "" && t.Reason != string(access.NoRoute) {
		f.At("%s", key).Add("write an address below the `from` of a route, or add reason: no_route", "no route publishes %q", text)
		return
	}
	c.checkRuleName(t.Rule, req.Route, f.At("rule"))
}

// checkRuleName reports a rule that the route does not have.
func (c *Config) checkRuleName(rule, route string, f access.Faults) {
	if rule == "" {
		return
	}
	known := c.Policy.Rules(route)
	if !slices.ContainsFunc(known, func(name string) bool { return namesRule(rule, name) }) {
		_, cure := didYouMean(rule, known)
		f.Add(cure, "route %q has no rule %q", route, rule)
	}
}

// namesRule reports whether a word of the file names a rule: with its kind, or
// by its name alone.
func namesRule(word, rule string) bool {
	_, name, _ := strings.Cut(rule, "/")
	return word == rule || word == name
}

func (c *Config) checkMissing(word string, f access.Faults) {
	kind, what, _ := strings.Cut(word, ".")
	var known []string
	switch kind {
	case "", "claims":
		return
	case "device":
		if what == "" {
			return
		}
		for _, name := range c.Policy.DeviceWords()[3:] {
			known = append(known, "device."+name)
		}
	case "login":
		known = []string{"login"}
		for name := range loginWords {
			known = append(known, name)
		}
	default:
		known = append([]string{"device", "login"}, conditionWords...)
	}
	if !slices.Contains(known, word) {
		_, cure := didYouMean(word, known)
		f.Add(cure, "%q is nothing that can be missing", word)
	}
}

// ask makes the request of a test, still without anyone who makes it.
func (c *Config) ask(t *Test) (*access.Request, error) {
	method, text := t.Target()
	target, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	return proxy.Imagine(c.Table, method, target)
}

// request makes the whole request of a test.
func (c *Config) request(t *Test) (*access.Request, error) {
	req, err := c.ask(t)
	if err != nil {
		return nil, err
	}
	req.Time = t.when()
	who := t.As
	if t.From != "" {
		who.IP = t.From
	}
	if err := c.As(req, &who); err != nil {
		return nil, err
	}
	return req, c.On(req, &t.Device)
}

// refusal tells whether an error is how a live request like this one would be
// refused, before any policy is asked.
func refusal(err error) (access.Reason, bool) {
	reason := access.ReasonOf(err)
	return reason, err != nil && reason != access.InternalError
}
