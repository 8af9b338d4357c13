package authz

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"

	"github.com/doorward/doorward/internal/access"
)

// Bounds on expressions. The cost limit is in CEL's own units: a membership test
// in a list of 5000 groups fits, a product of two such lists does not.
const (
	maxExpression = 4096
	celCostLimit  = 100_000
)

// What expressions see. Each variable is one of these structs, so that a
// misspelt field is found at load. Instants that are not known are the zero
// time, which lies before every other.
type (
	celRequest struct {
		Method string              `cel:"method"`
		Scheme string              `cel:"scheme"`
		Host   string              `cel:"host"`
		Path   string              `cel:"path"`
		Query  map[string][]string `cel:"query"`
		Time   time.Time           `cel:"time"`
	}
	celUser struct {
		ID            string   `cel:"id"`
		Provider      string   `cel:"provider"`
		Sub           string   `cel:"sub"`
		Email         string   `cel:"email"`
		EmailVerified bool     `cel:"email_verified"`
		Name          string   `cel:"name"`
		Username      string   `cel:"username"`
		Groups        []string `cel:"groups"`
	}
	celLogin struct {
		ACR  string    `cel:"acr"`
		AMR  []string  `cel:"amr"`
		Time time.Time `cel:"time"`
	}
	celDevice struct {
		ID            string    `cel:"id"`
		Known         string    `cel:"known"`
		Managed       string    `cel:"managed"`
		Compliant     string    `cel:"compliant"`
		DiskEncrypted string    `cel:"disk_encrypted"`
		Jailbroken    string    `cel:"jailbroken"`
		Risk          string    `cel:"risk"`
		OS            string    `cel:"os"`
		OSVersion     string    `cel:"os_version"`
		Owner         string    `cel:"owner"`
		Owned         string    `cel:"owned"`
		Source        string    `cel:"source"`
		SeenAt        time.Time `cel:"seen_at"`
	}
	celNetwork struct {
		IP string `cel:"ip"`
	}
	celToken struct {
		Scopes         []string `cel:"scopes"`
		ClientID       string   `cel:"client_id"`
		ServiceAccount string   `cel:"service_account"`
		SPIFFE         string   `cel:"spiffe"`
	}
	celSession struct {
		Created time.Time `cel:"created"`
		Expires time.Time `cel:"expires"`
	}
)

// celVariables are the variables with their types, except `claims`, a map.
var celVariables = map[string]reflect.Type{
	"request": reflect.TypeFor[celRequest](),
	"user":    reflect.TypeFor[celUser](),
	"login":   reflect.TypeFor[celLogin](),
	"device":  reflect.TypeFor[celDevice](),
	"network": reflect.TypeFor[celNetwork](),
	"session": reflect.TypeFor[celSession](),
	"token":   reflect.TypeFor[celToken](),
}

// newCELEnv makes the environment all expressions of a policy are checked in.
func newCELEnv() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ExpressionNodeLimit(maxExpression),
		cel.RegexProgramSizeLimit(maxExpression),
		cel.DefaultUTCTimeZone(true),
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.Function("in_cidr", cel.Overload("in_cidr_string_string",
			[]*cel.Type{cel.StringType, cel.StringType}, cel.BoolType, cel.BinaryBinding(inCIDR))),
	}
	native := []any{ext.ParseStructTags(true)}
	for name, t := range celVariables {
		native = append(native, t)
		options = append(options, cel.Variable(name, cel.ObjectType(t.String())))
	}
	return cel.NewEnv(append([]cel.EnvOption{ext.NativeTypes(native...)}, options...)...)
}

// inCIDR is the function in_cidr(ip, prefix). An address that is not known is an
// error, so that the rule cannot be decided.
func inCIDR(ip, prefix ref.Val) ref.Val {
	addr, err := netip.ParseAddr(string(ip.(types.String)))
	if err != nil {
		return types.NewErr("in_cidr: the address is not known")
	}
	network, err := netip.ParsePrefix(string(prefix.(types.String)))
	if err != nil {
		return types.NewErr("in_cidr: bad network")
	}
	return types.Bool(network.Contains(addr))
}

// An expression is one compiled CEL expression.
type expression struct {
	source  string
	program cel.Program
	// checked is what was written, for those who analyse it.
	checked *cel.Ast
	// query, groups and device tell that the expression may look at
	// request.query, user.groups and the device, which then have to be known.
	// Selecting a field needs its name, so a search for it suffices.
	query, groups, device bool
	// fresh says how old the facts of a device may be.
	fresh *profile
}

// compileCEL checks and plans an expression. Its errors are one line each.
func compileCEL(env *cel.Env, source string) (*expression, error) {
	checked, issues := env.Compile(source)
	if issues.Err() != nil {
		return nil, celError(issues)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("the result is %s, it must be bool: compare it with something", cel.FormatCELType(t))
	}
	if err := checkNetworks(checked); err != nil {
		return nil, err
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(celCostLimit))
	if err != nil {
		return nil, fmt.Errorf("cannot be planned: %w", err)
	}
	return &expression{source: source, program: program, checked: checked,
		query: strings.Contains(source, "query"), groups: strings.Contains(source, "groups"),
		device: strings.Contains(source, "device"), fresh: freshness(access.DevicePolicy{})}, nil
}

// checkNetworks demands that networks are written down, so that a bad one is
// found at load.
func checkNetworks(checked *cel.Ast) error {
	var fault error
	ast.PostOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if fault != nil || e.Kind() != ast.CallKind || e.AsCall().FunctionName() != "in_cidr" {
			return
		}
		network := e.AsCall().Args()[1]
		if network.Kind() != ast.LiteralKind {
			fault = errors.New(`in_cidr: write the network as a literal, such as "10.0.0.0/8"`)
			return
		}
		text, _ := network.AsLiteral().Value().(string)
		if _, err := parseNetwork(text); err != nil {
			fault = fmt.Errorf("in_cidr: %q %w", text, err)
		}
	}))
	return fault
}

var (
	celContainer = regexp.MustCompile(` ?\(in container '[^']*'\)`)
	celFields    = regexp.MustCompile(`undefined field '([^']+)'$`)
)

// celError keeps the useful part of CEL's first complaint and adds the place.
func celError(issues *cel.Issues) error {
	first := issues.Errors()[0]
	text, _, _ := strings.Cut(celContainer.ReplaceAllString(first.Message, ""), "\n")
	text = strings.ReplaceAll(strings.TrimPrefix(text, "Syntax error: "), "authz.cel", "")
	// CEL itself only suggests variables.
	if name := celFields.FindStringSubmatch(text); name != nil {
		if cure := didYouMean(name[1], celWords()); strings.HasPrefix(cure, "did") {
			text += "; " + cure
		}
	}
	place := fmt.Sprintf("column %d", first.Location.Column()+1)
	if first.Location.Line() > 1 {
		place = fmt.Sprintf("line %d, column %d", first.Location.Line(), first.Location.Column()+1)
	}
	return fmt.Errorf("%s: %s", place, text)
}

// celWords lists every name an expression can use.
func celWords() []string {
	words := []string{"claims", "in_cidr"}
	for name, t := range celVariables {
		words = append(words, name)
		for i := range t.NumField() {
			words = append(words, t.Field(i).Tag.Get("cel"))
		}
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// eval answers the expression. Any failure, also exceeding the cost limit, is an
// error and thereby unknown to the rule.
func (e *expression) eval(req *access.Request) (bool, error) {
	in := facts{req: req}
	if e.groups && req.Identity.GroupsIncomplete {
		return false, errors.New("the provider withheld groups")
	}
	if e.device {
		switch e.fresh.credible(&req.Device, req.Time) {
		case access.DeviceFactsTooOld, access.DeviceSourceUnavailable:
			return false, errors.New("the facts about the device are too old")
		}
	}
	if e.query {
		var err error
		if in.query, err = url.ParseQuery(req.Query); err != nil {
			return false, errors.New("the query is malformed")
		}
		if strings.Contains(req.Query, access.HiddenValue) {
			return false, errors.New("a value that looks like a token was taken out of the query")
		}
	}
	out, _, err := e.program.Eval(&in)
	if err != nil {
		return false, err
	}
	answer, ok := out.(types.Bool)
	if !ok {
		return false, errors.New("the result is no bool")
	}
	return bool(answer), nil
}

// facts hands out the variables an expression asks for, one at a time, because
// most expressions look at one or two.
type facts struct {
	req   *access.Request
	query map[string][]string
}

// Parent implements cel.Activation.
func (*facts) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (f *facts) ResolveName(name string) (any, bool) {
	req, id, dev := f.req, &f.req.Identity, &f.req.Device
	switch name {
	case "request":
		return &celRequest{Method: req.Method, Scheme: req.Scheme, Host: req.Host, Path: req.Path, Query: f.query, Time: req.Time}, true
	case "user":
		return &celUser{ID: id.User(), Provider: id.Provider, Sub: id.Subject, Email: id.Email, EmailVerified: id.EmailVerified,
			Name: id.Name, Username: id.Username, Groups: id.Groups}, true
	case "claims":
		if id.Claims == nil {
			return map[string]any{}, true
		}
		return id.Claims, true
	case "login":
		return &celLogin{ACR: id.Login.ACR, AMR: id.Login.AMR, Time: id.Login.Time}, true
	case "device":
		return &celDevice{ID: dev.ID, Known: dev.Known.String(), Managed: dev.Managed.String(), Compliant: dev.Compliant.String(),
			DiskEncrypted: dev.DiskEncrypted.String(), Jailbroken: dev.Jailbroken.String(), Risk: dev.Risk.String(), OS: dev.OS, OSVersion: dev.OSVersion,
			Owner: dev.Owner, Owned: dev.Owned.String(), Source: dev.Source, SeenAt: dev.SeenAt}, true
	case "network":
		ip := ""
		if addr := address(req); addr.IsValid() {
			ip = addr.String()
		}
		return &celNetwork{IP: ip}, true
	case "token":
		return &celToken{Scopes: id.Scopes, ClientID: id.ClientID, ServiceAccount: id.ServiceAccount, SPIFFE: id.SPIFFE}, true
	case "session":
		return &celSession{Created: req.Session.Created, Expires: req.Session.Expires}, true
	}
	return nil, false
}
