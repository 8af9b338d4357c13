package send

import (
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/doorward/doorward/internal/access"
)

// To is the receiver of an entry of `audit.to` that sends events elsewhere.
type To struct {
	// Syslog sends events to a syslog server over TLS (RFC 5424, RFC 5425).
	Syslog Syslog `yaml:"syslog"`
	// Splunk sends events to a Splunk HTTP Event Collector.
	Splunk Splunk `yaml:"splunk"`
	// OTLP sends events as OpenTelemetry logs (OTLP over HTTP, JSON encoding).
	OTLP OTLP `yaml:"otlp"`
	// Azure sends events to Azure Monitor by the Logs Ingestion API.
	Azure Azure `yaml:"azure"`
	// Webhook sends events to an address of yours, signed.
	Webhook Webhook `yaml:"webhook"`
}

// TLS says how to recognise the receiver, and to be recognised by it.
type TLS struct {
	// CA is a PEM file with the authorities that may vouch for the receiver.
	// Default: those of the system.
	CA string `yaml:"ca" doorward:"file"`
	// Certificate is a PEM file with a certificate to show to the receiver.
	// Default: none.
	Certificate string `yaml:"certificate" doorward:"file"`
	// CertificateKey is the PEM file with the key of Certificate.
	CertificateKey string `yaml:"certificate_key" doorward:"file"`
	// Unencrypted is the written reason why events may travel without TLS, such
	// as "a link of our own". Without it only addresses on this machine may.
	Unencrypted string `yaml:"unencrypted"`
}

// Syslog is a syslog server.
type Syslog struct {
	// Address is HOST:PORT; the port for TLS is 6514.
	Address string `yaml:"address"`
	// Plain speaks TCP without TLS. Default false.
	Plain bool `yaml:"plain"`
	// Facility is the number that stands for the kind of program: 10 security
	// (the default), 13 audit, 16 to 23 for local use.
	Facility int `yaml:"facility"`
	TLS      `yaml:",inline"`
}

// Splunk is a Splunk HTTP Event Collector.
type Splunk struct {
	// URL is the address of the collector, such as `https://splunk.example:8088`.
	URL string `yaml:"url"`
	// Token is the collector's token. Required.
	Token access.Secret `yaml:"token"`
	// Index is where Splunk puts the events. Default: that of the token.
	Index string `yaml:"index"`
	TLS   `yaml:",inline"`
}

// OTLP is a receiver of OpenTelemetry logs.
type OTLP struct {
	// URL is the whole address, such as `https://collector.example:4318/v1/logs`.
	URL string `yaml:"url"`
	// Header is sent along as `Authorization`, such as a bearer token. Default:
	// none.
	Header access.Secret `yaml:"authorization"`
	TLS    `yaml:",inline"`
}

// Azure is a table of a Log Analytics workspace.
type Azure struct {
	// Endpoint is the logs ingestion endpoint, such as
	// `https://doorward-ab12.westeurope-1.ingest.monitor.azure.com`.
	Endpoint string `yaml:"endpoint"`
	// Rule is the immutable id of the data collection rule, `dcr-…`. Required.
	Rule string `yaml:"rule"`
	// Stream is the stream of the rule, such as `Custom-Doorward_CL`. Required.
	Stream string `yaml:"stream"`
	// Tenant is the id of the Entra tenant. Required.
	Tenant string `yaml:"tenant"`
	// ClientID is the application that may write to the rule. Required.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the secret of that application. Required.
	ClientSecret access.Secret `yaml:"client_secret"`
	// Login is where tokens come from. Default
	// `https://login.microsoftonline.com`.
	Login string `yaml:"login"`
	TLS   `yaml:",inline"`
}

// Webhook is an address that takes a JSON array of events by POST.
type Webhook struct {
	// URL is the whole address.
	URL string `yaml:"url"`
	// Key is a secret of at least 32 bytes that signs every request (HTTP Message
	// Signatures, RFC 9421, hmac-sha256). Required.
	Key access.Secret `yaml:"key"`
	// KeyID tells the receiver which key it is. Default `doorward`.
	KeyID string `yaml:"key_id"`
	TLS   `yaml:",inline"`
}

// Name is what logs and metrics call the receiver; empty if there is none. It
// holds no secret.
func (t *To) Name() string {
	switch {
	case t.Syslog.Address != "":
		return "syslog " + t.Syslog.Address
	case t.Splunk.URL != "":
		return "splunk " + place(t.Splunk.URL)
	case t.OTLP.URL != "":
		return "otlp " + place(t.OTLP.URL)
	case t.Azure.Endpoint != "":
		return "azure " + place(t.Azure.Endpoint) + " " + t.Azure.Stream
	case t.Webhook.URL != "":
		return "webhook " + place(t.Webhook.URL)
	}
	return ""
}

func place(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(no address)"
	}
	return u.Host + strings.TrimRight(u.Path, "/")
}

// Count is how many receivers are named; more than one is a mistake.
func (t *To) Count() (n int) {
	for _, named := range []bool{t.Syslog.Address != "", t.Splunk.URL != "", t.OTLP.URL != "", t.Azure.Endpoint != "", t.Webhook.URL != ""} {
		if named {
			n++
		}
	}
	return n
}

// Validate reports every mistake in the receiver that is named.
func (t *To) Validate(f access.Faults) {
	switch {
	case t.Syslog.Address != "":
		t.Syslog.validate(f.At("syslog"))
	case t.Splunk.URL != "":
		f := f.At("splunk")
		t.Splunk.TLS.validate(f, "url", t.Splunk.URL)
		need(f, "token", "name the token: token: {file: PATH}", t.Splunk.Token.IsZero())
	case t.OTLP.URL != "":
		t.OTLP.TLS.validate(f.At("otlp"), "url", t.OTLP.URL)
	case t.Azure.Endpoint != "":
		t.Azure.validate(f.At("azure"))
	case t.Webhook.URL != "":
		f := f.At("webhook")
		t.Webhook.TLS.validate(f, "url", t.Webhook.URL)
		need(f, "key", "make one with: openssl rand -base64 33", len(t.Webhook.Key.Reveal()) < 32)
		if strings.ContainsFunc(t.Webhook.KeyID, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
			f.At("key_id").Add("use letters and digits", "the name of the key cannot stand in a header")
		}
	}
}

func need(f access.Faults, key, cure string, missing bool) {
	if missing {
		f.At("%s", key).Add(cure, "%s is missing, or too short", key)
	}
}

func (s *Syslog) validate(f access.Faults) {
	name, port, err := net.SplitHostPort(s.Address)
	if err != nil || name == "" || port == "" {
		f.At("address").Add("write HOST:PORT, such as logs.example:6514", "%q is no address", s.Address)
	}
	if s.Plain {
		s.reason(f, "address", name)
		if s.CA != "" || s.Certificate != "" {
			f.At("plain").Add("leave out plain, or ca and certificate", "certificates mean nothing without TLS")
		}
	}
	if s.Facility < 0 || s.Facility > 23 {
		f.At("facility").Add("write 10, 13, or 16 to 23", "there is no facility %d", s.Facility)
	}
	s.pair(f)
}

var azureNames = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func (a *Azure) validate(f access.Faults) {
	a.TLS.validate(f, "endpoint", a.Endpoint)
	for key, value := range map[string]string{"rule": a.Rule, "stream": a.Stream, "tenant": a.Tenant} {
		if !azureNames.MatchString(value) {
			f.At("%s", key).Add("copy it from the data collection rule", "%q is no %s", value, key)
		}
	}
	need(f, "client_id", "name the application that may write to the rule", a.ClientID == "")
	need(f, "client_secret", "name the secret: client_secret: {file: PATH}", a.ClientSecret.IsZero())
	if a.Login != "" {
		a.TLS.validate(f, "login", a.Login)
	}
}

// validate checks the address of a receiver and how to get there.
func (t *TLS) validate(f access.Faults, key, address string) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		f.At("%s", key).Add("write https://HOST/PATH", "this is no address of a web server")
	case u.User != nil || u.Fragment != "":
		f.At("%s", key).Add("leave it out; secrets have keys of their own", "the address holds a user or a fragment")
	case u.Scheme == "http":
		t.reason(f, key, u.Hostname())
	}
	t.pair(f)
}

// reason demands one for events that travel in the clear.
func (t *TLS) reason(f access.Faults, key, host string) {
	if !access.Loopback(host) && strings.TrimSpace(t.Unencrypted) == "" {
		f.At("%s", key).Add("use TLS, or write the reason: unencrypted: \"a link of our own\"", "events would travel to another machine without TLS")
	}
}

func (t *TLS) pair(f access.Faults) {
	if (t.Certificate == "") != (t.CertificateKey == "") {
		f.At("certificate").Add("name both certificate and certificate_key", "a certificate and its key belong together")
	}
}
