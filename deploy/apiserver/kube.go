//go:build tools

package apiserver

import _ "k8s.io/kubernetes/cmd/kube-apiserver/app" // the tests build the command beside it
