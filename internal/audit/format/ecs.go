package format

import "strings"

// ECSVersion is the version of the schema that records follow.
const ECSVersion = "8.17.0"

// ecsTable maps the members of events.
var ecsTable = []mapping{
	{"time", "@timestamp"},
	{"note", "message"},
	{"trace_id", "trace.id"},
	{"request_id", "http.request.id"},
	{"session", "session.id"},
	{"request.id", "http.request.id"},
	{"request.method", "http.request.method"},
	{"request.scheme", "url.scheme"},
	{"request.host", "url.domain"},
	{"request.path", "url.path"},
	{"request.query", "url.query"},
	{"request.network.ip", "source.ip"},
	{"request.identity.email", "user.email"},
	{"request.identity.name", "user.full_name"},
	{"request.identity.groups", "user.roles"},
	{"request.device.id", "device.id"},
	{"request.device.os", "host.os.platform"},
	{"request.device.os_version", "host.os.version"},
	{"decision.rule", "rule.name"},
	{"decision.policy", "rule.version"},
	{"decision.message", "message"},
	{"request.route", "rule.ruleset"},
	{"response.status", "http.response.status_code"},
	{"response.bytes_in", "http.request.body.bytes"},
	{"response.bytes_out", "http.response.body.bytes"},
	{"response.duration_ns", "event.duration"},
	{"response.upstream", "destination.address"},
}

// ecsKinds gives the category and the type of each kind of event. What is not
// listed is a configuration of the host, changed.
var ecsKinds = map[string][2]string{
	"decision": {"web", "access"},
	"closed":   {"web", "end"},
	"login":    {"authentication", "start"},
	"logout":   {"authentication", "end"},
	"session":  {"session", "info"},
	"signal":   {"iam", "change"},
	"admin":    {"iam", "admin"},
}

// ecs makes an ECS record. Members that ECS has no field for go to `doorward`.
func ecs(e Event, opts Options) map[string]any {
	record := map[string]any{}
	kind := e.Text("kind")
	is, listed := ecsKinds[kind]
	if !listed {
		is = [2]string{"configuration", "change"}
	}
	types := []any{is[1]}
	outcome := "success"
	if e.refused() {
		outcome = "failure"
	}
	switch e.Text("decision.outcome") {
	case "allow":
		types = append(types, "allowed")
	case "deny", "challenge":
		types = append(types, "denied")
	}
	put(record, "ecs.version", ECSVersion)
	put(record, "event", map[string]any{"kind": "event", "category": []any{is[0]}, "type": types, "outcome": outcome,
		"action": kind, "module": "doorward", "dataset": "doorward.audit", "severity": int(e.Severity())})
	put(record, "event.reason", e.reason())
	put(record, "observer.vendor", "doorward")
	put(record, "observer.product", "doorward")
	put(record, "observer.type", "proxy")
	put(record, "observer.version", opts.Version)
	put(record, "observer.hostname", opts.Host)
	ecsUser(e, record)
	e.move(record, ecsTable)
	e.take("kind")
	e.take(e.reasonAt())
	put(record, "doorward", e.rest())
	return record
}

func ecsUser(e Event, record map[string]any) {
	provider, subject := e.Text("request.identity.provider"), e.Text("request.identity.sub")
	if subject == "" {
		provider, subject, _ = strings.Cut(e.Text("actor"), ":")
		if subject == "" {
			return
		}
		e.take("actor")
	} else {
		put(record, "user.name", e.take("request.identity.username"))
	}
	put(record, "user.id", provider+":"+subject)
	put(record, "user.domain", e.take("request.identity.iss"))
	e.take("request.identity.provider")
	e.take("request.identity.sub")
}
