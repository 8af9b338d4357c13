package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/doorward/doorward/proxy"
)

const (
	// maxMessage bounds a question. A body that Envoy is told to send along makes it
	// larger, and is of no use.
	maxMessage        = 1 << 20
	maxHeaderList     = 64 << 10
	concurrentStreams = 1000
	handshakeTimeout  = 10 * time.Second
	idleTimeout       = 10 * time.Minute
)

// Server is the door for Envoy. Besides the questions it answers health checks
// (grpc.health.v1), by which Envoy finds out whom to ask.
type Server struct {
	authv3.UnimplementedAuthorizationServer
	opts   proxy.SideOptions
	grpc   *grpc.Server
	health *health.Server
}

// New returns a server that does not listen yet.
func New(opts proxy.SideOptions) *Server {
	opts = opts.WithDefaults()
	s := &Server{opts: opts, health: health.NewServer()}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxHeaderListSize(maxHeaderList), grpc.MaxConcurrentStreams(concurrentStreams),
		grpc.ConnectionTimeout(handshakeTimeout), grpc.UnaryInterceptor(s.survive), grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: time.Minute, Timeout: 15 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
	if opts.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(opts.TLS)))
	}
	s.grpc = grpc.NewServer(options...)
	authv3.RegisterAuthorizationServer(s.grpc, s)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	s.health.SetServingStatus(authv3.Authorization_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	return s
}

// Serve answers until Shutdown or Close, which make it return nil.
func (s *Server) Serve(l net.Listener) error { return s.grpc.Serve(l) }

// Shutdown tells health checks first, then waits for the questions under way
// until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.health.Shutdown()
	return s.finish(ctx)
}

// settle is how long a connection that was accepted last has to begin: grpc closes
// one that has not.
const settle = 100 * time.Millisecond

// Leave has front ends connect anew, to whoever listens here then, and waits for
// the questions under way until ctx ends. Health checks go on passing. The listener
// is to be closed before.
func (s *Server) Leave(ctx context.Context) error {
	select {
	case <-time.After(settle):
	case <-ctx.Done():
	}
	return s.finish(ctx)
}

// finish has every connection end in good form.
func (s *Server) finish(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
		return ctx.Err()
	}
}

// Close ends everything at once.
func (s *Server) Close() error {
	s.grpc.Stop()
	return nil
}

// Check implements the one method of the service. It never fails: Envoy may have
// been told to let everybody through when it gets no answer (failure_mode_allow),
// so that a question that means nothing is answered with a denial.
func (s *Server) Check(ctx context.Context, check *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	defer s.opts.Begin()()
	who, from := asker(ctx)
	if err := s.opts.Door.MayAsk(func(c *proxy.Config) *proxy.SideDoor { return &c.ExtAuthz }, who); err != nil {
		return answer(proxy.Refused(err)), nil
	}
	q, err := question(ctx, from, check)
	if err != nil {
		s.opts.Log.Warn("a front end asked in a way that means nothing", "peer", from, "error", err)
		return answer(proxy.Refused(err)), nil
	}
	return answer(s.opts.Door.Authorize(q)), nil
}

// survive answers for a bug, which would end the program otherwise.
func (s *Server) survive(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (res any, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.opts.Log.Error("panic while answering a front end", "method", info.FullMethod, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			res, err = nil, status.Error(codes.Internal, "internal error")
			if info.FullMethod == authv3.Authorization_Check_FullMethodName {
				res, err = answer(proxy.Refused(errors.New("internal error"))), nil
			}
		}
	}()
	return next(ctx, req)
}

// asker returns who is at the other end of the connection, and its address as
// net/http writes it.
func asker(ctx context.Context) (proxy.Asker, string) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return proxy.Asker{}, ""
	}
	who, from := proxy.Asker{}, ""
	if p.Addr != nil {
		from = p.Addr.String()
	}
	if ap, err := netip.ParseAddrPort(from); err == nil {
		who.Addr = ap.Addr().Unmap().WithZone("")
	}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		who.TLS = &info.State
	}
	return who, from
}
