package devicecheck

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Limits of one pull. Whatever reaches one of them fails as a whole.
const (
	maxPull     = 64 << 20 // bytes of all answers, unpacked
	maxPages    = 10_000
	maxAttempts = 5  // for one page
	maxRetries  = 20 // for one pull
	pageTimeout = 30 * time.Second
	// maxWait is how long one pull waits for a server that asks for patience;
	// if it asks for more, the pull fails, and the server is left alone for as
	// long as it asked, up to maxPause.
	maxWait  = time.Minute
	maxPause = time.Hour
	// ahead is how far in the future a device may claim to have been seen.
	ahead = 5 * time.Minute
	// maxHops bounds redirects, which stay on one host.
	maxHops = 3
)

// outside is what a remote inventory needs from the world.
type outside struct {
	transport http.RoundTripper
	now       func() time.Time
	rand      func() float64 // in [0,1)
	sleep     func(ctx context.Context, d time.Duration) error
	log       *slog.Logger
}

func (o outside) orReal() outside {
	if o.transport == nil {
		o.transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.rand == nil {
		o.rand = rand.Float64
	}
	if o.sleep == nil {
		o.sleep = sleep
	}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	return o
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// remote is the common half of every inventory that is asked over HTTP.
type remote struct {
	outside
	client *http.Client
	home   *url.URL // every page is on its host
	// authorize adds what proves who we are. fresh asks for a new token, because
	// the one before was refused. It reports whether asking again with a fresh
	// one can help.
	authorize func(ctx context.Context, p *pull, h http.Header, fresh bool) (renewable bool, err error)
	// told is what was logged about values that are not known here.
	told map[oddity]bool
	// notBefore is until when the server asked to be left alone.
	notBefore time.Time
}

func newRemote(home string, o outside) (*remote, error) {
	u, err := parseHome(home)
	if err != nil {
		return nil, err
	}
	return &remote{outside: o, home: u, told: map[oddity]bool{}, client: &http.Client{Transport: o.transport, CheckRedirect: stayHome}}, nil
}

var errAway = errors.New("the server redirects to another place")

// stayHome follows a redirect only for reading and only within one host: our
// credentials are for that host.
func stayHome(req *http.Request, via []*http.Request) error {
	first := via[0]
	if first.Method != http.MethodGet || !sameHost(req.URL, first.URL) || len(via) > maxHops {
		return errAway
	}
	return nil
}

func sameHost(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && a.Host == b.Host && a.User == nil && a.Opaque == ""
}

// parseHome parses the address of an inventory.
func parseHome(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return nil, errors.New("the address is no absolute URL")
	case u.User != nil || u.Fragment != "":
		return nil, errors.New("the address holds a user or a fragment")
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		if u.Path == "" {
			u.Path = "/" // what is joined to it begins with one then
		}
		return u, nil
	default:
		return nil, errors.New("the address does not begin with https:// (plain http is for this machine only)")
	}
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// pull is one reading of a remote inventory, from the first page to the last.
// It ends with a whole inventory or with an error.
type pull struct {
	*remote
	left    int // bytes
	retries int
	renewed bool
	asked   map[string]bool // pages
	empty   int             // pages in a row
	// emptyAs tells whether an answer without its array means that it is empty.
	// Nil: that is a fault.
	emptyAs func(answer any) bool
	odd     oddities

	devices []access.Device
	byID    map[string]int
}

func (r *remote) begin() (*pull, error) {
	if r.now().Before(r.notBefore) {
		return nil, fmt.Errorf("%s asks to be left alone until %s", r.home.Host, r.notBefore.UTC().Format(time.RFC3339))
	}
	return &pull{remote: r, left: maxPull, asked: map[string]bool{}, odd: oddities{}, byID: map[string]int{}}, nil
}

// page reads one page, which is on the home host and was not read before.
func (p *pull) page(ctx context.Context, u *url.URL) ([]byte, error) {
	if !sameHost(u, p.home) {
		return nil, fmt.Errorf("the next page is not on %s", p.home.Host)
	}
	address := u.String()
	if p.asked[address] {
		return nil, errors.New("the pages lead in a circle")
	}
	if len(p.asked) == maxPages {
		return nil, fmt.Errorf("there are more than %d pages", maxPages)
	}
	p.asked[address] = true
	for fresh := false; ; fresh = true {
		renewable := false
		body, err := p.ask(ctx, func(ctx context.Context) (*http.Request, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
			if err != nil {
				return nil, errors.New("the address of a page is invalid")
			}
			req.Header.Set("Accept", "application/json")
			if p.authorize != nil {
				renewable, err = p.authorize(ctx, p, req.Header, fresh)
				fresh = false // a retry needs no other token
			}
			return req, err
		})
		if !errors.Is(err, errUnauthorized) || !renewable || p.renewed {
			return body, err
		}
		p.renewed = true
	}
}

var errUnauthorized = errors.New("answered 401: the credentials are refused")

// busy is a failure that may pass.
type busy struct {
	err   error
	after time.Duration // as the server asked, or 0
}

func (b *busy) Error() string { return b.err.Error() }

// refused is an answer that asking again does not change.
type refused struct {
	where  string
	status int
}

func (r *refused) Error() string { return fmt.Sprintf("%s answered %d", r.where, r.status) }

// ask sends a request, again and ever later while the failure may pass, and
// returns the whole body of an answer 200.
func (p *pull) ask(ctx context.Context, build func(context.Context) (*http.Request, error)) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		body, err := p.once(ctx, build)
		var b *busy
		if !errors.As(err, &b) {
			return body, err
		}
		wait := b.after + time.Duration(p.rand()*float64(time.Second))
		if b.after == 0 {
			wait = time.Duration((0.5 + p.rand()) * float64(time.Second/2<<attempt))
		}
		deadline, bounded := ctx.Deadline()
		if attempt == maxAttempts || p.retries == maxRetries || b.after > maxWait || bounded && time.Until(deadline) < wait {
			if b.after > 0 {
				p.notBefore = p.now().Add(min(b.after, maxPause))
			}
			return nil, b.err
		}
		p.retries++
		if err := p.sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("%w (waiting after: %w)", err, b.err)
		}
	}
}

func (p *pull) once(ctx context.Context, build func(context.Context) (*http.Request, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	req, err := build(ctx)
	if err != nil {
		return nil, err
	}
	where := place(req.URL)
	resp, err := p.client.Do(req)
	if err != nil {
		var told *url.Error // which repeats the whole address
		if errors.As(err, &told) {
			err = told.Err
		}
		err = fmt.Errorf("%s: %w", where, err)
		if errors.Is(err, errAway) {
			return nil, err
		}
		return nil, &busy{err: err}
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusCreated:
		if req.Method == http.MethodGet { // some create tokens
			return nil, &refused{where, resp.StatusCode}
		}
	case http.StatusUnauthorized:
		return nil, fmt.Errorf("%s: %w", where, errUnauthorized)
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return nil, &busy{err: fmt.Errorf("%s answered %d", where, resp.StatusCode), after: p.retryAfter(resp.Header.Get("Retry-After"))}
	default:
		return nil, &refused{where, resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(p.left)+1))
	if len(body) > p.left {
		return nil, fmt.Errorf("%s: the answers are larger than %d MiB", where, maxPull>>20)
	}
	p.left -= len(body) // of broken answers too
	if err != nil {
		return nil, &busy{err: fmt.Errorf("%s: the answer breaks off: %w", where, err)}
	}
	return body, nil
}

// place tells where an answer came from, without the query, which may hold
// secrets.
func place(u *url.URL) string { return clip(u.Host + u.EscapedPath()) }

// retryAfter returns what the header of this name asks for, 0 if nothing.
func (p *pull) retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxPause/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(p.now()))
	}
	return 0
}

// add takes one device. A device whose id nobody could name is left out, so
// that it is not known. If two records have one id, only what they agree on
// counts: pages shift while they are read, inventories keep old records, and
// some let a device choose its own id.
func (p *pull) add(d access.Device) error {
	if !canName(d.ID) || trimmed(d.ID) != nil {
		return nil
	}
	d.Known = access.Yes
	if d.SeenAt.After(p.now().Add(ahead)) {
		d.SeenAt = time.Time{}
	}
	if first, twice := p.byID[d.ID]; twice {
		agree(&p.devices[first], &d)
		return nil
	}
	if len(p.devices) == maxRecords {
		return fmt.Errorf("there are more than %d devices", maxRecords)
	}
	p.byID[d.ID] = len(p.devices)
	p.devices = append(p.devices, d)
	return nil
}

// worse returns the higher of two risks, unknown where one of them is unknown
// and the other one could be told away by it.
func worse(a, b access.Risk) access.Risk {
	switch {
	case a.Low() == access.No || b.Low() == access.No:
		return max(a, b)
	case a == access.RiskUnknown || b == access.RiskUnknown:
		return access.RiskUnknown
	}
	return max(a, b)
}

// agree leaves in a what b says too.
func agree(a, b *access.Device) {
	for _, fact := range [][2]*access.Tri{
		{&a.Managed, &b.Managed}, {&a.Compliant, &b.Compliant}, {&a.DiskEncrypted, &b.DiskEncrypted}, {&a.Jailbroken, &b.Jailbroken},
	} {
		if *fact[0] != *fact[1] {
			*fact[0] = access.Unknown
		}
	}
	a.Risk = worse(a.Risk, b.Risk)
	for _, text := range [][2]*string{
		{&a.OS, &b.OS}, {&a.OSVersion, &b.OSVersion}, {&a.Owner, &b.Owner}, {&a.Name, &b.Name},
		{&a.Certificate.Serial, &b.Certificate.Serial}, {&a.Certificate.Fingerprint, &b.Certificate.Fingerprint},
	} {
		if *text[0] != *text[1] {
			*text[0] = ""
		}
	}
	if b.SeenAt.Before(a.SeenAt) { // the zero time is before all
		a.SeenAt = b.SeenAt
	}
	a.GraceUntil = earlier(a.GraceUntil, b.GraceUntil)
	for _, reason := range b.Reasons {
		note(a, reason)
	}
}

// done returns the inventory, or have if it says the same.
func (p *pull) done(have *inventory) (*inventory, error) {
	sum := sha256.New()
	odd := p.odd.total()
	if err := json.NewEncoder(sum).Encode([]any{p.devices, odd}); err != nil {
		return nil, err
	}
	p.tellOdd(p.odd)
	version := hex.EncodeToString(sum.Sum(nil))
	if have != nil && have.version == version {
		return have, nil
	}
	b := newBuilder(p.home.Host, version)
	b.inv.odd = odd
	for n := range p.devices {
		b.add(p.devices[n], n+1, 1)
		if b.enough() {
			break
		}
	}
	return b.done()
}

// note adds a reason, unless it is there, is no plain text or is one too many.
// Words of an inventory are for people; no fact depends on them.
func note(d *access.Device, reason string) {
	for _, known := range d.Reasons {
		if known == strings.TrimSpace(reason) {
			return
		}
	}
	_ = addReason(d, reason)
}

// plain returns a text that may reach logs and pages, or nothing. It is no
// fault of an inventory what people call their devices.
func plain(value any) string {
	text, _ := value.(string)
	if checkText(text) != nil {
		return ""
	}
	return strings.TrimSpace(text)
}

// moment returns a time, zero if it is unknown. Year 1 is how some say "never".
func moment(value any) time.Time {
	text, _ := value.(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Year() <= 1970 {
		return time.Time{}
	}
	return at.UTC()
}
