// Package apiserver answers: does a real Kubernetes API server take what
// deploy/kubernetes and the chart say, and do service accounts pass and fail as
// docs/kubernetes.md says?
//
// It is a module of its own, with the API server as its one dependency, and takes
// minutes to build; `make test-kubernetes` runs it.
package apiserver
