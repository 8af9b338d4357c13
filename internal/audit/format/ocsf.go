package format

import (
	"encoding/json"
	"net/http"
	"strings"
)

// OCSFVersion is the version of the schema that records follow.
const OCSFVersion = "1.3.0"

// The classes of OCSF that are used, and their categories.
const (
	classBase     = 0
	classAuth     = 3002
	classEntity   = 3004
	classHTTP     = 4002
	classAPI      = 6003
	activityOther = 99
)

var categories = map[int]int{classBase: 0, classAuth: 3, classEntity: 3, classHTTP: 4, classAPI: 6}

// ocsfHTTP maps the members of requests.
var ocsfHTTP = []mapping{
	{"request.id", "http_request.uid"},
	{"request.method", "http_request.http_method"},
	{"request.scheme", "http_request.url.scheme"},
	{"request.host", "http_request.url.hostname"},
	{"request.path", "http_request.url.path"},
	{"request.query", "http_request.url.query_string"},
	{"request.route", "policy.group.name"},
	{"request.network.ip", "src_endpoint.ip"},
	{"request.identity.email", "actor.user.email_addr"},
	{"request.identity.name", "actor.user.full_name"},
	{"request.session.id", "actor.session.uid"},
	{"request.session.created", "actor.session.created_time"},
	{"request.session.expires", "actor.session.expiration_time"},
	{"request.device.id", "device.uid"},
	{"request.device.name", "device.name"},
	{"request.device.owner", "device.owner.name"},
	{"decision.rule", "policy.name"},
	{"decision.policy", "policy.version"},
	{"decision.message", "message"},
	{"response.status", "http_response.code"},
	{"response.bytes_in", "traffic.bytes_in"},
	{"response.bytes_out", "traffic.bytes_out"},
	{"response.upstream", "dst_endpoint.name"},
}

// ocsfOther maps the members of events without a request.
var ocsfOther = []mapping{
	{"request_id", "metadata.correlation_uid"},
	{"note", "message"},
}

// ocsf makes an OCSF record. Members that no class has a place for go to
// `unmapped`.
func ocsf(e Event, opts Options) map[string]any {
	record := map[string]any{}
	kind, refused, reason := e.Text("kind"), e.refused(), e.reason()
	put(record, "time", e.Time().UnixMilli())
	record["severity_id"] = int(e.Severity())
	record["status_id"] = map[bool]int{false: 1, true: 2}[refused]
	put(record, "status_detail", reason)
	switch kind {
	case "decision", "closed":
		ocsfRequest(e, record, kind)
	case "login", "logout", "session":
		ocsfSession(e, record, kind)
	case "config", "signal":
		ocsfEntity(e, record, kind)
	case "admin":
		ocsfAdmin(e, record)
	default:
		class(record, classBase, activityOther, kind)
	}
	e.move(record, ocsfOther)
	put(record, "metadata.version", OCSFVersion)
	put(record, "metadata.log_name", kind)
	put(record, "metadata.product", map[string]any{"name": "doorward", "vendor_name": "doorward"})
	put(record, "metadata.product.version", opts.Version)
	for _, path := range []string{"kind", "time", e.reasonAt()} {
		e.take(path)
	}
	put(record, "unmapped", e.rest())
	return record
}

// class names the class of a record and what happened in its terms.
func class(record map[string]any, uid, activity int, name string) {
	record["category_uid"], record["class_uid"] = categories[uid], uid
	record["activity_id"], record["type_uid"] = activity, uid*100+activity
	if activity == activityOther {
		record["activity_name"] = name
	}
}

var ocsfMethods = map[string]int{http.MethodConnect: 1, http.MethodDelete: 2, http.MethodGet: 3, http.MethodHead: 4,
	http.MethodOptions: 5, http.MethodPost: 6, http.MethodPut: 7, http.MethodTrace: 8, http.MethodPatch: 9}

func ocsfRequest(e Event, record map[string]any, kind string) {
	activity, known := ocsfMethods[e.Text("request.method")]
	if !known {
		activity = activityOther
	}
	class(record, classHTTP, activity, e.Text("request.method"))
	action, disposition := 1, 1 // allowed
	decision := e.Text("decision.outcome")
	switch {
	case kind == "closed":
		action, disposition = 2, 24 // access revoked
	case decision == "challenge":
		action, disposition = 2, 23
	case decision != "allow" && decision != "":
		action, disposition = 2, 2 // blocked
	case decision == "":
		action, disposition = 3, 17 // an address of Doorward's own: observed, logged
	}
	record["action_id"], record["disposition_id"] = action, disposition
	put(record, "metadata.profiles", []any{"host", "security_control"})
	put(record, "status_code", e.Get("response.status"))
	put(record, "duration", e.Number("response.duration_ns")/1e6)
	e.take("response.duration_ns")
	if decision != "" {
		policy := map[string]any{}
		put(policy, "name", e.Text("decision.rule"))
		put(policy, "version", e.Text("decision.policy"))
		authorization := map[string]any{"decision": decision}
		put(authorization, "policy", policy)
		record["authorizations"] = []any{authorization}
		e.take("decision.outcome")
	}
	if e.Text("request.session.id") != "" {
		put(record, "actor.session.issuer", e.Get("request.identity.iss"))
		millis(e, "request.session.created")
		millis(e, "request.session.expires")
	}
	ocsfUser(e, record, "actor.user")
	ocsfDevice(e, record)
	put(record, "dst_endpoint.hostname", e.Text("request.host"))
	if e.Get("request.network.ip") == nil {
		put(record, "src_endpoint.name", "unknown")
	}
	e.move(record, ocsfHTTP)
	if e.Text("request_id") == "" {
		put(record, "metadata.correlation_uid", Event(record).Get("http_request.uid"))
	}
	if _, answered := record["http_response"]; !answered {
		put(record, "http_response.code", json.Number("0"))
	}
}

// millis turns a time into milliseconds, as OCSF counts them.
func millis(e Event, path string) {
	at, name := e.find(path)
	if when := (Event{"time": at[name]}).Time(); !when.IsZero() {
		at[name] = when.UnixMilli()
	}
}

// ocsfUser moves the identity to where the user stands.
func ocsfUser(e Event, record map[string]any, at string) {
	provider, subject := e.Text("request.identity.provider"), e.Text("request.identity.sub")
	if subject == "" {
		return
	}
	put(record, at+".uid", provider+":"+subject)
	name := e.Text("request.identity.username")
	if name == "" {
		name = provider + ":" + subject
	}
	put(record, at+".name", name)
	put(record, at+".domain", e.take("request.identity.iss"))
	put(record, at+".type_id", map[bool]int{false: 1, true: 3}[e.Text("request.identity.kind") == "service"]) // user or system
	for _, path := range []string{"provider", "sub", "username"} {
		e.take("request.identity." + path)
	}
	if groups, ok := e.take("request.identity.groups").([]any); ok {
		var list []any
		for _, group := range groups {
			list = append(list, map[string]any{"name": group})
		}
		put(record, at+".groups", list)
	}
}

// ocsfSystems are the numbers of operating systems.
var ocsfSystems = map[string]int{"windows": 100, "linux": 200, "android": 201, "macos": 300, "ios": 301}

func ocsfDevice(e Event, record map[string]any) {
	if e.Text("request.device.id") == "" {
		return
	}
	put(record, "device.type_id", 0)
	for from, to := range map[string]string{"managed": "is_managed", "compliant": "is_compliant"} {
		if known := e.Text("request.device." + from); known == "yes" || known == "no" {
			put(record, "device."+to, known == "yes")
			e.take("request.device." + from)
		}
	}
	if name := e.Text("request.device.os"); name != "" {
		id, known := ocsfSystems[name]
		if !known {
			id = activityOther
		}
		put(record, "device.os", map[string]any{"name": name, "type_id": id})
		put(record, "device.os.version", e.take("request.device.os_version"))
		e.take("request.device.os")
	}
	if level, known := map[string]int{"none": 0, "low": 1, "medium": 2, "high": 3}[e.Text("request.device.risk")]; known {
		put(record, "device.risk_level_id", level)
		e.take("request.device.risk")
	}
}

func ocsfSession(e Event, record map[string]any, kind string) {
	activity := activityOther
	switch kind {
	case "login":
		activity = 1
	case "logout":
		activity = 2
	}
	class(record, classAuth, activity, kind)
	ocsfUser(e, record, "user")
	user, _ := record["user"].(map[string]any)
	if user == nil {
		actor := e.Text("actor")
		if actor == "" {
			actor = "unknown"
		} else {
			e.take("actor")
		}
		record["user"] = map[string]any{"name": actor, "uid": actor}
	}
	record["auth_protocol_id"] = 4 // OpenID
	put(record, "service.name", "doorward")
	put(record, "session.uid", e.take("session"))
	put(record, "src_endpoint.ip", e.take("request.network.ip"))
	put(record, "dst_endpoint.hostname", e.take("request.host"))
	put(record, "user.email_addr", e.take("request.identity.email"))
	put(record, "user.full_name", e.take("request.identity.name"))
	if e.Text("request_id") == "" {
		put(record, "metadata.correlation_uid", e.take("request.id"))
	}
}

func ocsfEntity(e Event, record map[string]any, kind string) {
	class(record, classEntity, 3, kind) // update
	entity := map[string]any{"type": "configuration", "name": "doorward"}
	if kind == "signal" {
		entity = map[string]any{"type": "session", "name": "what the signal is about"}
		put(entity, "uid", e.take("session"))
		if actor := e.Text("actor"); actor != "" {
			put(entity, "name", e.take("actor"))
		}
	}
	record["entity"] = entity
}

func ocsfAdmin(e Event, record map[string]any) {
	class(record, classAPI, activityOther, "admin")
	actor, _ := e.take("actor").(string)
	if actor = strings.TrimSpace(actor); actor == "" {
		actor = "unknown"
	}
	put(record, "actor.user.name", actor)
	put(record, "actor.user.uid", actor)
	put(record, "api.operation", "admin")
	put(record, "api.service.name", "doorward")
	if ip := e.take("request.network.ip"); !empty(ip) {
		put(record, "src_endpoint.ip", ip)
	} else {
		put(record, "src_endpoint.name", "admin listener")
	}
}
