// Command grpcinterop is the server of gRPC's own interoperability tests. It listens
// at the address of its first argument, with TLS where a certificate and a key are
// named after it. The client is built beside it as it is, a tool of this module. It
// is a module of its own, so that nothing of the suite stands in Doorward's go.mod.
package main

import (
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until the process ends. The suite's own server would listen on every
// network of the machine.
func run(address string, pair []string) error {
	var options []grpc.ServerOption
	if len(pair) == 2 {
		secure, err := credentials.NewServerTLSFromFile(pair[0], pair[1])
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(secure))
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	grpc_testing.RegisterTestServiceServer(server, interop.NewTestServer())
	fmt.Println("listening")
	return server.Serve(listener)
}
