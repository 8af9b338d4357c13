package access

import (
	"maps"
	"slices"
)

// Finding is something in a configuration that is permitted, and yet hardly
// what was meant, or worth knowing.
type Finding struct {
	// Kind says what it is, and with At what an acceptance names.
	Kind FindingKind `json:"finding"`
	// At is the part of the configuration by its names, which survive when lines
	// move: "billing", "billing/deny/no-deletes", "groups/oncall".
	At string `json:"at"`
	// Path is the field, as in "routes[2].deny[0]".
	Path string `json:"path"`
	// Text says what was found, Cure what to do about it.
	Text string `json:"text"`
	Cure string `json:"cure,omitempty"`
}

// FindingKind is the stable name of a kind of findings.
type FindingKind string

// Severity says how much a finding matters.
type Severity string

// The severities. An error is a part of the policy that cannot do what it says;
// a warning is probably a mistake; a note is a decision that reviewers should
// know of.
const (
	SevereError   Severity = "error"
	SevereWarning Severity = "warning"
	SevereNote    Severity = "note"
)

// The kinds of findings. docs/check.md explains each.
const (
	NeverMatches       FindingKind = "never-matches"
	NeverEqual         FindingKind = "never-equal"
	PathOutside        FindingKind = "path-outside"
	MethodNever        FindingKind = "method-never"
	AllowShadowed      FindingKind = "allow-shadowed"
	RouteClosed        FindingKind = "route-closed"
	DenyAfterPublic    FindingKind = "deny-after-public"
	RequireAfterPublic FindingKind = "require-after-public"
	GroupEmpty         FindingKind = "group-empty"
	RuleForNobody      FindingKind = "rule-for-nobody"
	DeviceImpossible   FindingKind = "device-impossible"
	LoginImpossible    FindingKind = "login-impossible"
	MatchImpossible    FindingKind = "match-impossible"

	RuleImplied     FindingKind = "rule-implied"
	ValueImplied    FindingKind = "value-implied"
	RequireIdle     FindingKind = "require-idle"
	AlwaysTrue      FindingKind = "always-true"
	HiddenQuery     FindingKind = "hidden-query"
	LooserBelow     FindingKind = "looser-below"
	HostCut         FindingKind = "host-cut"
	PublicWrites    FindingKind = "public-writes"
	GroupUnused     FindingKind = "group-unused"
	ProfileUnused   FindingKind = "profile-unused"
	ProviderUnused  FindingKind = "provider-unused"
	AcceptanceStale FindingKind = "acceptance-stale"

	PublicRule        FindingKind = "public"
	OpenPreflight     FindingKind = "preflight"
	Exception         FindingKind = "exception"
	OnlyReports       FindingKind = "report-only"
	AnyUser           FindingKind = "any-user"
	ForeignUsers      FindingKind = "foreign-users"
	NoDevice          FindingKind = "no-device"
	PlaintextUpstream FindingKind = "plaintext-upstream"
	PlaintextListener FindingKind = "plaintext-listener"
	AnyTokenType      FindingKind = "any-token-type"
	ForeignOrigins    FindingKind = "foreign-origins"
)

// severities is the closed list of kinds.
var severities = map[FindingKind]Severity{
	NeverMatches: SevereError, NeverEqual: SevereError, PathOutside: SevereError, MethodNever: SevereError,
	AllowShadowed: SevereError, RouteClosed: SevereError, DenyAfterPublic: SevereError, RequireAfterPublic: SevereError,
	GroupEmpty: SevereError, RuleForNobody: SevereError, DeviceImpossible: SevereError, LoginImpossible: SevereError,
	MatchImpossible: SevereError,

	RuleImplied: SevereWarning, ValueImplied: SevereWarning, RequireIdle: SevereWarning, AlwaysTrue: SevereWarning,
	HiddenQuery: SevereWarning, LooserBelow: SevereWarning, HostCut: SevereWarning, PublicWrites: SevereWarning,
	GroupUnused: SevereWarning, ProfileUnused: SevereWarning, ProviderUnused: SevereWarning, AcceptanceStale: SevereWarning,

	PublicRule: SevereNote, OpenPreflight: SevereNote, Exception: SevereNote, OnlyReports: SevereNote, AnyUser: SevereNote, ForeignUsers: SevereNote,
	NoDevice: SevereNote, PlaintextUpstream: SevereNote, PlaintextListener: SevereNote, AnyTokenType: SevereNote, ForeignOrigins: SevereNote,
}

// Severity returns how much findings of the kind matter; an unlisted kind is an
// error.
func (k FindingKind) Severity() Severity {
	if s, ok := severities[k]; ok {
		return s
	}
	return SevereError
}

// FindingKinds lists all kinds, sorted.
func FindingKinds() []FindingKind { return slices.Sorted(maps.Keys(severities)) }
