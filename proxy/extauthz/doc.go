// Package extauthz answers the question: how does Envoy ask, and how is it told?
//
// It is the door for everything that speaks ext_authz v3 over gRPC
// (envoy.service.auth.v3.Authorization/Check): Envoy itself, Istio, and the
// implementations of the Kubernetes Gateway API that are built on Envoy. A question
// becomes a proxy.Question, a verdict becomes a CheckResponse; nothing is decided
// here. It is the only package that knows gRPC.
package extauthz
