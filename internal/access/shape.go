package access

// Redirect is the answer of a route that leads somewhere else.
type Redirect struct {
	// To is where it leads: `https://new.corp.example.com/wiki`, or `/wiki` on the
	// same host.
	To string `yaml:"to"`
	// Status is 301, 302, 303, 307 or 308. Default 302.
	Status int `yaml:"status"`
	// KeepPath appends what stands behind the path of `from`, and the query. Default
	// false: everything leads to the same address.
	KeepPath bool `yaml:"keep_path"`
}

// Enabled reports whether the route redirects.
func (r *Redirect) Enabled() bool { return *r != Redirect{} }

// Respond is a fixed answer: robots.txt, or a page that says when an application
// is back.
type Respond struct {
	// Status is the status of the answer, 200 to 599 without redirects. Required.
	Status int `yaml:"status"`
	// Body is the text of the answer, at most 65536 bytes.
	Body string `yaml:"body"`
	// ContentType says what the text is. Default `text/plain; charset=utf-8`.
	ContentType string `yaml:"content_type"`
}

// Enabled reports whether the route has a fixed answer.
func (r *Respond) Enabled() bool { return *r != Respond{} }

// Answers reports whether the route answers by itself, without an upstream.
func (r *Route) Answers() bool { return r.Redirect.Enabled() || r.Respond.Enabled() }

// ResponseHeaders edits the headers of the answers that pass. What frames a message
// and what Doorward itself says in them cannot be edited.
type ResponseHeaders struct {
	// Remove lists headers to take out.
	Remove []string `yaml:"remove"`
	// Set gives headers this one value, whatever they had.
	Set map[string]string `yaml:"set"`
	// Add appends a value to what headers have.
	Add map[string]string `yaml:"add"`
}

// IsZero reports whether nothing is edited.
func (r *ResponseHeaders) IsZero() bool { return len(r.Remove)+len(r.Set)+len(r.Add) == 0 }

// CORS says which pages of other origins may use a route (Fetch standard, "CORS
// protocol"). Doorward answers their preflights and says so in every answer; what
// the upstream says about it is taken out.
type CORS struct {
	// Origins lists the origins of the pages: `https://app.example.com`, or
	// `https://*.apps.example.com` for all hosts one label below. `"*"` stands for
	// every page there is, which then sees what nobody has to log in for.
	Origins []string `yaml:"origins"`
	// Methods lists what the pages may send. Default: GET, HEAD and POST.
	Methods []string `yaml:"methods"`
	// Headers lists the request headers that the pages may set.
	Headers []string `yaml:"headers"`
	// Expose lists the headers of answers that the pages may read, besides those
	// that every page may.
	Expose []string `yaml:"expose"`
	// Credentials lets the pages act as the visitor: browsers send cookies along and
	// show the answers. Default false.
	Credentials bool `yaml:"credentials"`
	// MaxAge is how long browsers may keep the answer to a preflight. Default 10m.
	MaxAge Duration `yaml:"max_age"`
}

// Enabled reports whether the route knows other origins.
func (c *CORS) Enabled() bool {
	return len(c.Origins)+len(c.Methods)+len(c.Headers)+len(c.Expose) > 0 || c.Credentials || c.MaxAge != 0
}

// HSTS says for how long browsers shall come back to a host by https only (RFC
// 6797). It is sent where Doorward itself ends TLS.
type HSTS struct {
	// Mode is `send`; `forget`, which has browsers forget what they were told; or
	// `upstream`, which leaves it to the application. Default `send`.
	Mode string `yaml:"mode"`
	// MaxAge is how long browsers remember it. Default 365d.
	MaxAge Duration `yaml:"max_age"`
	// IncludeSubdomains says that it holds for all hosts below as well. Default
	// false.
	IncludeSubdomains bool `yaml:"include_subdomains"`
}

// IsZero reports whether nothing is said.
func (h HSTS) IsZero() bool { return h == HSTS{} }
