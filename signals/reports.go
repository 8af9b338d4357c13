package signals

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

const (
	reportPrefix = "signal/report/"
	// reportLife is how long a report about a device counts at most. Inventories
	// know by then.
	reportLife = 30 * 24 * time.Hour
	// rewatch is the pause before a watch that broke off is begun again.
	rewatch = time.Second
	// readWait bounds the first reading of what is remembered.
	readWait = 10 * time.Second
)

// report is what transmitters said of one device, or of one certificate.
type report struct {
	// Compliant is No, or Unknown where nobody objects. It is never Yes here.
	Compliant access.Tri `json:"compliant"`
	// Risk is what was said of it, RiskUnknown if nobody did.
	Risk access.Risk `json:"risk"`
	// Serial and Issuer are set for a certificate that was withdrawn.
	Serial string `json:"serial,omitempty"`
	Issuer string `json:"issuer,omitempty"`

	Device string    `json:"device,omitempty"`
	At     time.Time `json:"at"`
	RiskAt time.Time `json:"risk_at,omitzero"`
	By     string    `json:"by"`
	From   string    `json:"from"`
}

// Reports remembers what transmitters said of devices. It lies in the store, so
// that every replica knows, and in memory, so that no request waits for it.
type Reports struct {
	store  store.Store
	now    func() time.Time
	log    *slog.Logger
	signal func(access.Signal)

	known atomic.Pointer[known]
	mu    sync.Mutex // one change of known at a time
}

// known is everything that is remembered. It never changes.
type known struct {
	reports map[string]report   // by key in the store
	devices map[string][]report // by id of the device, one of each transmitter
	serials map[string][]report // by serial number of a certificate
}

// newKnown indexes reports, which it keeps.
func newKnown(reports map[string]report) *known {
	k := &known{reports: reports, devices: map[string][]report{}, serials: map[string][]report{}}
	for _, says := range reports {
		if says.Serial == "" {
			k.devices[says.Device] = append(k.devices[says.Device], says)
			continue
		}
		for _, serial := range serialForms(says.Serial) {
			k.serials[serial] = append(k.serials[serial], says)
		}
	}
	for _, list := range k.devices { // maps have no order, and visitors read the reasons
		slices.SortFunc(list, func(a, b report) int { return strings.Compare(a.From, b.From) })
	}
	return k
}

func newReports(opts *Options) *Reports {
	r := &Reports{store: opts.Store, now: opts.Now, log: opts.Log, signal: opts.Signal}
	r.known.Store(newKnown(map[string]report{}))
	return r
}

// begin reads what is remembered before anything is decided without it.
func (r *Reports) begin() error {
	ctx, cancel := context.WithTimeout(context.Background(), readWait)
	defer cancel()
	return r.readAll(ctx)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// say remembers a report unless the same transmitter has said something later. It
// returns whether anything changed.
func (r *Reports) say(ctx context.Context, device string, says report) (changed bool, err error) {
	says.Device = device
	err = r.update(ctx, reportPrefix+digest("device "+says.From+" "+device), func(have *report) bool {
		merged := have.merge(says)
		changed = merged != *have
		*have = merged
		return changed
	})
	return changed, err
}

// merge brings two reports of one transmitter about one device together; of each
// statement the later one counts. That a device is compliant again only takes an objection back.
func (r report) merge(more report) report {
	merged := r
	merged.Device, merged.From, merged.By = more.Device, more.From, more.By
	if more.Compliant != access.Unknown && more.At.After(r.At) {
		merged.At, merged.Compliant = more.At, access.No
		if more.Compliant == access.Yes {
			merged.Compliant = access.Unknown
		}
	}
	if more.Risk != access.RiskUnknown && more.At.After(r.RiskAt) {
		merged.RiskAt, merged.Risk = more.At, more.Risk
	}
	if merged.At == r.At && merged.RiskAt == r.RiskAt {
		return r
	}
	return merged
}

// certificate remembers that a certificate was withdrawn. That is for good.
func (r *Reports) certificate(ctx context.Context, serial, issuer string, at time.Time, by string) error {
	if len(serial) > maxName || len(issuer) > 4*maxName {
		return nil // no certificate of ours has such a one
	}
	return r.update(ctx, reportPrefix+digest("certificate "+serial+"\x00"+issuer), func(have *report) bool {
		if have.Serial != "" {
			return false
		}
		*have = report{Serial: serial, Issuer: issuer, At: at, By: by}
		return true
	})
}

const maxTries = 32

// update changes a report in the store, again if somebody else changed it.
func (r *Reports) update(ctx context.Context, key string, change func(*report) bool) error {
	for range maxTries {
		item, err := r.store.Get(ctx, key)
		var have report
		switch {
		case errors.Is(err, store.ErrNotFound):
			item = store.Item{Key: key, Version: store.New}
		case errors.Is(err, store.ErrCorrupt):
			item = store.Item{Key: key, Version: store.Any}
		case err != nil:
			return err
		default:
			if err := json.Unmarshal(item.Value, &have); err != nil {
				have = report{}
			}
		}
		if !change(&have) {
			return nil
		}
		if item.Value, err = json.Marshal(have); err != nil {
			return err
		}
		item.Expires = r.now().Add(reportLife)
		if have.Serial != "" {
			item.Expires = r.now().Add(10 * 365 * 24 * time.Hour) // longer than any certificate of a device
		}
		_, err = r.store.Put(ctx, item)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err == nil {
			r.learn(key, &have) // and not only when the store tells us
		}
		return err
	}
	return fmt.Errorf("%w: a report changes all the time", store.ErrUnavailable)
}

// learn takes a report into memory, or forgets one, and tells what it touches.
func (r *Reports) learn(key string, says *report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reports := maps.Clone(r.known.Load().reports)
	touched := reports[key].Device
	delete(reports, key)
	if says != nil {
		reports[key], touched = *says, says.Device
	}
	r.known.Store(newKnown(reports))
	if r.signal != nil {
		// A certificate may be that of any device.
		r.signal(access.Signal{Reason: access.DeviceChanged, Device: touched})
	}
}

// serialForms returns the serial numbers that a text may mean, in our spelling:
// hexadecimal, in lower case, with an even number of digits.
func serialForms(text string) (forms []string) {
	plain := strings.ToLower(strings.NewReplacer(":", "", " ", "", "-", "").Replace(text))
	for base, digits := range map[int]string{16: strings.TrimPrefix(plain, "0x"), 10: plain} {
		if n, ok := new(big.Int).SetString(digits, base); ok && n.Sign() >= 0 {
			raw := n.Bytes()
			if len(raw) == 0 {
				raw = []byte{0}
			}
			if form := fmt.Sprintf("%x", raw); !slices.Contains(forms, form) {
				forms = append(forms, form)
			}
		}
	}
	return forms
}

// Apply narrows what is known of a device by what was reported of it. It takes no
// lock and allocates only where there is something to say.
func (r *Reports) Apply(d *access.Device) {
	k := r.known.Load()
	if d.Certificate.Serial != "" && len(k.serials) > 0 {
		for _, says := range k.serials[d.Certificate.Serial] {
			if says.Issuer == "" || sameName(says.Issuer, d.Certificate.Issuer) {
				d.Problem = access.DeviceCertRevoked
			}
		}
	}
	if d.ID == "" || len(k.devices) == 0 {
		return
	}
	for _, says := range k.devices[d.ID] {
		// What the inventory heard from the device later is newer than the report.
		if says.Compliant == access.No && !d.SeenAt.After(says.At) {
			d.Compliant = access.No
			d.Reasons = append(slices.Clip(d.Reasons), "reported as not compliant by "+says.From)
		}
		// A report of a low risk vouches for nothing.
		if says.Risk >= access.RiskMedium && says.Risk > d.Risk && !d.SeenAt.After(says.RiskAt) {
			d.Risk = says.Risk
		}
	}
}

// sameName compares distinguished names without regard to spelling, case and order.
func sameName(a, b string) bool {
	parts := func(s string) []string {
		list := strings.FieldsFunc(strings.ToLower(s), func(c rune) bool { return c == ',' || c == '/' || c == ';' })
		for i := range list {
			list[i] = strings.ReplaceAll(strings.TrimSpace(list[i]), " ", "")
		}
		slices.Sort(list)
		return list
	}
	return slices.Equal(parts(a), parts(b))
}

// follow keeps memory true to the store until ctx ends.
func (r *Reports) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		r.log.Error("reports of shared signals about devices are not read from the store; trying again", "error", err)
		timer := time.NewTimer(rewatch)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (r *Reports) watch(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	changes, err := r.store.Watch(ctx, reportPrefix)
	if err != nil {
		return err
	}
	if err := r.readAll(ctx); err != nil {
		return err
	}
	for change := range changes {
		switch {
		case change.Lost:
			err = r.readAll(ctx)
		case change.Deleted:
			r.learn(change.Key, nil)
		default:
			err = r.read(ctx, change.Key)
		}
		if err != nil {
			return err
		}
	}
	return errors.New("the store reports no more changes")
}

func (r *Reports) read(ctx context.Context, key string) error {
	item, err := r.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		r.learn(key, nil)
		return nil
	}
	var says report
	if err == nil {
		err = json.Unmarshal(item.Value, &says)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	r.learn(key, &says)
	return nil
}

func (r *Reports) readAll(ctx context.Context) error {
	reports := map[string]report{}
	for item, err := range r.store.List(ctx, reportPrefix) {
		var says report
		if err == nil {
			err = json.Unmarshal(item.Value, &says)
		}
		switch {
		case err != nil && item.Key == "":
			return err
		case err != nil:
			r.log.Error("a report of shared signals is damaged and left out", "key", item.Key, "error", err)
		default:
			reports[item.Key] = says
		}
	}
	r.mu.Lock()
	r.known.Store(newKnown(reports))
	r.mu.Unlock()
	if r.signal != nil {
		r.signal(access.Signal{Reason: access.DeviceChanged})
	}
	return nil
}
