package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/doorward/doorward/internal/access"
)

// echoStream answers every message of any method, and says in a trailer how
// many there were.
func echoStream(_ any, stream grpc.ServerStream) error {
	n := 0
	for {
		var in wrapperspb.StringValue
		err := stream.RecvMsg(&in)
		if err == io.EOF {
			stream.SetTrailer(metadata.Pairs("received", fmt.Sprint(n)))
			return status.Error(codes.DataLoss, "that was it")
		}
		if err != nil {
			return err
		}
		n++
		user := metadata.ValueFromIncomingContext(stream.Context(), "x-forwarded-user")
		if err := stream.SendMsg(wrapperspb.String(fmt.Sprint(user, " ", in.Value))); err != nil {
			return err
		}
	}
}

func (w *world) grpc(t *testing.T) *grpc.ClientConn {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(w.server.Certificate())
	conn, err := grpc.NewClient("passthrough:///app.example",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", w.server.Listener.Addr().String())
		}),
		grpc.WithTransportCredentials(&otherName{credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "example.com"})}),
		grpc.WithAuthority("app.example"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// otherName lets a test connection verify one name and ask for another.
type otherName struct {
	credentials.TransportCredentials
}

func (o *otherName) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return o.TransportCredentials.ClientHandshake(ctx, "example.com", conn)
}

func (o *otherName) Info() credentials.ProtocolInfo {
	info := o.TransportCredentials.Info()
	info.ServerName = "app.example"
	return info
}

func (o *otherName) Clone() credentials.TransportCredentials {
	return &otherName{o.TransportCredentials.Clone()}
}

func TestGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(echoStream))
	healthpb.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listener)
	t.Cleanup(server.Stop)

	route := access.Route{ID: "grpc", From: "https://app.example", To: []string{"h2c://" + listener.Addr().String()},
		Headers: map[string]string{"X-Forwarded-User": "sub"}}
	w := newWorld(t, []access.Route{route}, overHTTP2)
	conn := w.grpc(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "cookie", "__Host-doorward=alice", "x-forwarded-user", "root")

	t.Run("unary", func(t *testing.T) {
		res, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		if err != nil || res.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%v %v", res, err)
		}
		w.rec.event(t)
	})
	t.Run("an error arrives in headers alone", func(t *testing.T) {
		_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: "none"})
		if status.Code(err) != codes.NotFound {
			t.Error(err)
		}
		w.rec.event(t)
	})
	t.Run("both directions at once, with a trailer", func(t *testing.T) {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/chat.Chat/Talk")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			stream.SendMsg(wrapperspb.String(fmt.Sprint(i)))
			var out wrapperspb.StringValue
			if err := stream.RecvMsg(&out); err != nil || out.Value != fmt.Sprintf("[alice] %d", i) {
				t.Fatalf("%v %v", out.Value, err)
			}
		}
		stream.CloseSend()
		err = stream.RecvMsg(&wrapperspb.StringValue{})
		if status.Code(err) != codes.DataLoss || fmt.Sprint(stream.Trailer()["received"]) != "[3]" {
			t.Errorf("%v %v", err, stream.Trailer())
		}
		w.rec.event(t)
	})
	t.Run("refusals are gRPC's own", func(t *testing.T) {
		_, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("nobody: %v", err)
		}
		if e := w.rec.event(t); e.Decision.Reason != access.LoginRequired || e.Response.Status != 200 {
			t.Errorf("%+v %+v", e.Decision, e.Response)
		}
		w.snapshot.Policy = deny(access.NotAllowed)
		_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != access.NotAllowed.Info().Title {
			t.Errorf("alice: %v", err)
		}
		w.rec.event(t)
		w.snapshot.Policy = policy(loginFirst)
		server.Stop()
		if _, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("upstream gone: %v", err)
		}
	})
}
