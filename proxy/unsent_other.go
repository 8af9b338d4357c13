//go:build !linux

package proxy

import "net"

// unsent is known on Linux.
type unsent struct{}

func (*unsent) nothing(net.Conn) bool { return false }
