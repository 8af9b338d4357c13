package admin

import (
	"time"

	"github.com/doorward/doorward/internal/access"
)

// Instance tells how the process that is asked is doing.
type Instance interface {
	// State is what the overview shows beside the numbers. It must not wait.
	State() State
	// Routes are the published applications, in the order of the file.
	Routes() []RouteInfo
	// Settings are what is configured, in the order of the file's reference.
	Settings() []Setting
}

// Activity remembers what operators did and which configurations came.
type Activity interface {
	// Actions returns the latest events of the kinds admin and config, newest
	// first, at most limit.
	Actions(limit int) []*access.Event
}

// State is how a process is doing, apart from its requests.
type State struct {
	// Started is when it began to serve, Config the version of the configuration in
	// force and Loaded since when it is.
	Started time.Time
	Config  string
	Loaded  time.Time
	// File is where the configuration is from.
	File string
	// Failed is when a newer configuration was refused, zero if the latest is in
	// force, and Failure says why.
	Failed  time.Time
	Failure string
	// Candidate is the version of what is decided with and not enforced;
	// CandidateFailure says why there is none.
	Candidate, CandidateFailure string

	// InFlight are requests and connections that are open.
	InFlight int
	// Store names where sessions are kept, StoreFailure why it does not answer.
	Store, StoreFailure string
	// Audit is how the record of everything is doing.
	Audit AuditState
	// Providers are the identity providers.
	Providers []ProviderState
	// Certificates are those that visitors are shown.
	Certificates []Certificate
}

// AuditState is how the audit log is doing.
type AuditState struct {
	// Waiting are the events that are not written yet, Lost those that never will.
	Waiting int
	Lost    uint64
	// Failure says why nothing is written; Required that requests are refused then.
	Failure  string
	Required bool
	// Receivers are those elsewhere.
	Receivers []Receiver
}

// Receiver is somebody to whom audit events are sent.
type Receiver struct {
	Name string
	// Waiting are the events that it has not got yet, Lag how old the oldest is.
	Waiting int64
	Lag     time.Duration
	// Lost are events that it will never get.
	Lost    uint64
	Failing bool
}

// ProviderState is how an identity provider is doing.
type ProviderState struct {
	ID string
	// Failure says why nobody can log in there.
	Failure string
}

// Certificate is one that visitors are shown.
type Certificate struct {
	// Hosts are those it is for, Source a file or "ACME".
	Hosts    []string
	Source   string
	NotAfter time.Time // zero: there is none
	// Failure says why there is no newer one.
	Failure string
}

// RouteInfo is one published application.
type RouteInfo struct {
	*access.Route
	// Device and Login are what it demands, its own and the defaults together.
	Device []string
	Login  access.LoginRequire
	// Targets are where its requests go.
	Targets []Target
}

// Target is one upstream of a route.
type Target struct {
	Address string
	// State is how it is doing, such as "up" or "ejected"; empty: nobody knows. Used
	// tells that requests go there.
	State string
	Used  bool
	// Since is when a state began that is not as it should be, Failure what went
	// wrong last.
	Since   time.Time
	Failure string
	// Open are the requests it is working on, Waiting those that wait for it.
	Open, Waiting int
}

// Setting is one key of the configuration.
type Setting struct {
	// Key is its path: "server.admin.listen", "routes[0].id".
	Key string
	// Value is as the file would write it. A secret is named and not told.
	Value string
	// Line is where the file says so; 0 for a default.
	Line int
}
