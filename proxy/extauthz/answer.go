package extauthz

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/proxy"
)

// answer puts a verdict as Envoy reads it. The status of the answer and its form,
// ok or denied, always say the same.
func answer(v *proxy.Verdict) *authv3.CheckResponse {
	if v.Allowed {
		return &authv3.CheckResponse{
			Status:          &status.Status{Code: int32(codes.OK)},
			HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: allowed(v)},
			DynamicMetadata: metadata(v),
		}
	}
	code := codes.PermissionDenied
	switch v.Status {
	case http.StatusUnauthorized, http.StatusFound:
		code = codes.Unauthenticated
	case http.StatusServiceUnavailable, http.StatusInternalServerError:
		code = codes.Unavailable
	}
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(code), Message: string(v.Decision.Reason)},
		HttpResponse:    &authv3.CheckResponse_DeniedResponse{DeniedResponse: denied(v)},
		DynamicMetadata: metadata(v),
	}
}

// allowed overwrites what the application must hear from Doorward alone, and
// removes what it must not hear at all.
func allowed(v *proxy.Verdict) *authv3.OkHttpResponse {
	ok := &authv3.OkHttpResponse{}
	for _, name := range slices.Sorted(maps.Keys(v.HandOn)) {
		value := strings.Join(v.HandOn[name], ", ")
		if !utf8.ValidString(value) {
			// A protobuf string cannot carry the rest of the visitor's header, and as
			// they sent it, it may hold what the application must not see.
			ok.HeadersToRemove = append(ok.HeadersToRemove, strings.ToLower(name))
			continue
		}
		ok.Headers = append(ok.Headers, option(name, value, false))
	}
	for _, name := range v.Remove {
		ok.HeadersToRemove = append(ok.HeadersToRemove, strings.ToLower(name))
	}
	for _, cookie := range v.Header["Set-Cookie"] {
		ok.ResponseHeadersToAdd = append(ok.ResponseHeadersToAdd, option("Set-Cookie", cookie, true))
	}
	return ok
}

// denied is the same page, problem document or redirect that a visitor of the
// standalone door gets.
func denied(v *proxy.Verdict) *authv3.DeniedHttpResponse {
	no := &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}}
	if _, known := typev3.StatusCode_name[int32(v.Status)]; known && v.Status >= http.StatusMultipleChoices {
		no.Status.Code = typev3.StatusCode(v.Status)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Header)) {
		if name == "Content-Length" || name == "Connection" {
			continue // Envoy frames the answer
		}
		for i, value := range v.Header[name] {
			no.Headers = append(no.Headers, option(name, value, i > 0))
		}
	}
	if utf8.Valid(v.Body) {
		no.Body = string(v.Body)
	}
	return no
}

// option says append in the old way, which Envoy looks at first and which every
// version knows. Left out, it would mean other things in other places.
func option(name, value string, more bool) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: strings.ToLower(name), Value: value}, Append: wrapperspb.Bool(more)}
}

// metadata is for Envoy's access log and its later filters: who, by which rule,
// and where the record is. It holds no secret.
func metadata(v *proxy.Verdict) *structpb.Struct {
	fields := map[string]*structpb.Value{}
	set := func(name, value string) {
		if value != "" && utf8.ValidString(value) {
			fields[name] = structpb.NewStringValue(value)
		}
	}
	set("request", v.Request.ID)
	set("route", v.Request.Route)
	set("rule", v.Decision.Rule)
	set("outcome", v.Decision.Outcome.String())
	set("reason", string(v.Decision.Reason))
	set("policy", v.Decision.Policy)
	if id := &v.Request.Identity; !id.Nobody() {
		set("user", id.User())
		set("provider", id.Provider)
	}
	if v.Request.Device.Problem == "" {
		set("device", v.Request.Device.ProvenID())
	}
	if v.Decision.Outcome == access.Challenge && len(v.Decision.Needs) > 0 {
		set("missing", string(v.Decision.Needs[0].Reason))
	}
	return &structpb.Struct{Fields: fields}
}
