package authz

import (
	"net/netip"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/doorward/doorward/internal/access"
)

// celFacts is what can be read off an expression without running it.
type celFacts struct {
	// constant tells that it looks at nothing, and value is what it always says.
	constant, value bool
	// needed are, per fact such as "request.host", the texts one of which it must
	// have for the expression to be true: one list for each term of a conjunction.
	needed map[string][][]string
	// networks are the networks in which the visitor must be, likewise.
	networks networks
	// begins are the beginnings that the path must have, likewise.
	begins []string
	// compared are the texts that facts are compared with anywhere.
	compared []comparison
	// parameters are those whose values the expression looks at.
	parameters []string
}

// comparison is one text that a fact is compared with.
type comparison struct{ fact, text string }

// facts reads an expression.
func (e expects) facts() *celFacts {
	f := &celFacts{needed: map[string][][]string{}}
	root := e.checked.NativeRep().Expr()
	f.constant = true
	ast.PreOrderVisit(root, ast.NewExprVisitor(func(x ast.Expr) {
		if x.Kind() == ast.IdentKind {
			f.constant = false
		}
		f.look(x)
	}))
	if f.constant {
		out, _, err := e.program.Eval(&facts{req: new(access.Request)})
		value, ok := out.(types.Bool)
		f.value = err == nil && ok && bool(value)
		// What fails always is never as wanted either.
		f.constant = err == nil || !f.value
	}
	f.conjunction(root)
	return f
}

// look notes comparisons and query parameters.
func (f *celFacts) look(x ast.Expr) {
	switch x.Kind() {
	case ast.SelectKind:
		if s := x.AsSelect(); !s.IsTestOnly() && factName(s.Operand()) == "request.query" {
			f.parameters = append(f.parameters, s.FieldName())
		}
	case ast.CallKind:
		call := x.AsCall()
		args := call.Args()
		switch call.FunctionName() {
		case operators.Index:
			if name, ok := literal(args[1]); ok && factName(args[0]) == "request.query" {
				f.parameters = append(f.parameters, name)
			}
		case operators.Equals, operators.NotEquals, operators.In:
			fact, texts := compares(call)
			for _, text := range texts {
				f.compared = append(f.compared, comparison{fact, text})
			}
		}
	}
}

// conjunction collects what must hold for a conjunction to be true.
func (f *celFacts) conjunction(x ast.Expr) {
	if x.Kind() != ast.CallKind {
		return
	}
	call := x.AsCall()
	switch name := call.FunctionName(); name {
	case operators.LogicalAnd:
		for _, arg := range call.Args() {
			f.conjunction(arg)
		}
	case operators.Equals, operators.In:
		if fact, texts := compares(call); fact != "" {
			f.needed[fact] = append(f.needed[fact], texts)
		}
	case "in_cidr":
		if text, ok := literal(call.Args()[1]); ok && factName(call.Args()[0]) == "network.ip" {
			if network, err := netip.ParsePrefix(text); err == nil {
				f.networks = append(f.networks, network)
			}
		}
	case "startsWith":
		if call.IsMemberFunction() && factName(call.Target()) == "request.path" {
			if text, ok := literal(call.Args()[0]); ok {
				f.begins = append(f.begins, text)
			}
		}
	}
}

// compares returns the fact that a comparison looks at and the texts it is
// compared with. It returns no fact where it is no such comparison.
func compares(call ast.CallExpr) (fact string, texts []string) {
	a, b := call.Args()[0], call.Args()[1]
	if call.FunctionName() == operators.In {
		if b.Kind() != ast.ListKind {
			return "", nil
		}
		for _, element := range b.AsList().Elements() {
			text, ok := literal(element)
			if !ok {
				return "", nil
			}
			texts = append(texts, text)
		}
		if fact = factName(a); fact == "" {
			return "", nil
		}
		return fact, texts
	}
	for range 2 {
		if text, ok := literal(b); ok && factName(a) != "" {
			return factName(a), []string{text}
		}
		a, b = b, a
	}
	return "", nil
}

// factName returns "request.host" for a field of a variable.
func factName(x ast.Expr) string {
	if x.Kind() != ast.SelectKind || x.AsSelect().IsTestOnly() || x.AsSelect().Operand().Kind() != ast.IdentKind {
		return ""
	}
	return x.AsSelect().Operand().AsIdent() + "." + x.AsSelect().FieldName()
}

func literal(x ast.Expr) (string, bool) {
	if x.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := x.AsLiteral().Value().(string)
	return text, ok
}

// contradiction words two terms that are never true together; empty if none is
// known.
func (f *celFacts) contradiction() string {
	for _, fact := range keys(f.needed) {
		lists := f.needed[fact]
		for i, texts := range lists {
			for _, others := range lists[i+1:] {
				if !meet(texts, others) {
					return fact + " cannot be " + anyOf(texts) + " and " + anyOf(others)
				}
			}
		}
	}
	for i, a := range f.networks {
		for _, b := range f.networks[i+1:] {
			if !a.Overlaps(b) {
				return "no address is in " + a.String() + " and in " + b.String()
			}
		}
	}
	for i, a := range f.begins {
		for _, b := range f.begins[i+1:] {
			if !strings.HasPrefix(a, b) && !strings.HasPrefix(b, a) {
				return "no path begins with " + a + " and with " + b
			}
		}
	}
	return ""
}

// fit reports whether an address can be in the networks of the expression and
// in one of these.
func (f *celFacts) fit(n networks) bool {
	for _, network := range f.networks {
		if n.disjoint(networks{network}) {
			return false
		}
	}
	return true
}

// closed lists, for facts that have few values, all they ever have. Their values
// are words of ours, so that another word is a mistake.
func (c *comparison) closed(providers []string) (values []string, ok bool) {
	switch c.fact {
	case "device.known", "device.managed", "device.compliant", "device.disk_encrypted", "device.jailbroken":
		return []string{"yes", "no", "unknown"}, true
	case "device.os":
		return slices.Concat([]string{""}, operatingSystems), true
	case "request.scheme":
		return []string{"http", "https", "ws", "wss", "tcp"}, true
	case "user.provider":
		return slices.Concat([]string{""}, providers), true
	}
	return nil, false
}
