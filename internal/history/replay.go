package history

import (
	"context"

	"github.com/doorward/doorward/authz"
	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
	"github.com/doorward/doorward/proxy"
)

// Replay decides every recorded request again, with another configuration, and
// tells what would be different. The route is found again from the address.
// Who was asking, on which device, is taken from the record as it was found out
// then: changed providers, inventories or trusted proxies are not replayed.
func Replay(ctx context.Context, files *audit.Files, next *config.Config, filter Filter) (*Report, error) {
	again := replayer{next: next, filter: filter}
	report := &Report{Config: next.Path, Version: next.Version}
	err := scan(ctx, files, again.batch, report.add)
	if err != nil {
		return nil, err
	}
	report.finish()
	return report, nil
}

// Compare decides every recorded request twice, with two configurations, and
// tells what differs between them, whatever was decided then.
func Compare(ctx context.Context, files *audit.Files, before, after *config.Config, filter Filter) (*Report, error) {
	again := replayer{base: before, next: after, filter: filter}
	report := &Report{Config: after.Path, Version: after.Version}
	if err := scan(ctx, files, again.batch, report.add); err != nil {
		return nil, err
	}
	report.finish()
	return report, nil
}

type replayer struct {
	base   *config.Config // nil: what was decided then
	next   *config.Config
	filter Filter
}

func (p *replayer) batch(batch audit.Batch) *Report {
	part := &Report{}
	read := each(batch, &p.filter, func(r *Record) { p.record(r, part) })
	part.Log.add(&read)
	return part
}

func (p *replayer) record(r *Record, into *Report) {
	if r.Obscure != "" || r.Decision == nil {
		into.unknown(r, r.Obscure)
		return
	}
	before := r.Request.Route
	if p.base != nil {
		then, req := *r, *r.Request
		then.Request = &req
		if gaps := again(p.base, &then); p.base.Policy.Depends(&req, gaps) {
			into.unknown(r, lacking(gaps))
			return
		}
		decision := p.base.Policy.Decide(&req)
		r.Decision, before = &decision, req.Route
	}
	gaps := again(p.next, r)
	if p.filter.Route != "" && p.filter.Route != before && p.filter.Route != r.Request.Route {
		into.Log.Skipped++
		return
	}
	decision := p.next.Policy.Decide(r.Request)
	same, sameOutcome := equal(r.Decision, &decision), r.Decision.Outcome == decision.Outcome
	samePolicy := r.Decision.Policy == p.next.Version
	switch {
	case same && (samePolicy || !p.next.Policy.Depends(r.Request, gaps)):
		into.Same++
	case p.next.Policy.Depends(r.Request, gaps):
		into.unknown(r, lacking(gaps))
	case samePolicy:
		into.change(&into.inconsistent, r, &decision, before)
	case sameOutcome:
		into.change(&into.reasons, r, &decision, before)
	default:
		into.change(&into.changes, r, &decision, before)
	}
}

// again brings a recorded request to where it would stand in another
// configuration behind station 2, and returns what is not known of it there.
func again(next *config.Config, r *Record) authz.Gaps {
	req, gaps := r.Request, r.Gaps
	if req.Path == "" || req.Fault != "" && req.Fault != access.AmbiguousPath {
		return gaps // refused for a reason that no route can change
	}
	nobodyAsked := req.Fault != "" || req.Route == ""
	if req.Fault != "" && len(proxy.Ambiguities(req)) == 0 {
		return gaps // an old record: what was wrong with the spelling is not known
	}
	req.Fault = "" // it comes back where the spelling is not permitted
	seen := next.Table.Rematch(req)
	req.Route, req.Fault = seen.Route, seen.Fault
	gaps.Everyone = nobodyAsked && req.Fault == "" && req.Route != ""
	return gaps
}

// equal compares two verdicts by what they decide and why. Wordings may differ
// between versions of Doorward.
func equal(a, b *access.Decision) bool {
	if a.Outcome != b.Outcome || a.Reason != b.Reason || a.Rule != b.Rule || a.Message != b.Message || len(a.Needs) != len(b.Needs) {
		return false
	}
	for i := range a.Needs {
		if a.Needs[i].Reason != b.Needs[i].Reason || a.Needs[i].Profile != b.Needs[i].Profile {
			return false
		}
	}
	if a.Nearest == nil || b.Nearest == nil {
		return a.Nearest == b.Nearest
	}
	return a.Nearest.Rule == b.Nearest.Rule
}

// lacking says what a record does not tell.
func lacking(gaps authz.Gaps) string {
	switch {
	case gaps.Everyone:
		return "it was refused before anybody asked who it is"
	case gaps.Path:
		return "what looked like a token was taken out of the path"
	case gaps.Query:
		return "what looked like a token was taken out of the query"
	case gaps.Claims:
		return "claims were not recorded"
	}
	return "recorded before this was asked of devices: " + gaps.Device[0]
}
