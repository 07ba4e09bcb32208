package grpcapi

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
)

// ListBackends lists the backends that there are, healthy or not.
func (s service) ListBackends(ctx context.Context, q *computev1.ListBackendsRequest) (*computev1.ListBackendsResponse, error) {
	s.client(ctx)
	list := &computev1.ListBackendsResponse{}
	for _, b := range s.Backends.Look(ctx) {
		if is(b, q.GetTypeFilter()) {
			list.Backends = append(list.Backends, describe(b, s.Backends.Metrics(b.ID)))
		}
	}
	return list, nil
}

// is reports whether a backend is of that type or device class; any is of none.
func is(b backend.Backend, kind string) bool {
	return kind == "" || strings.EqualFold(kind, b.Program()) || strings.EqualFold(kind, string(b.Class))
}

func describe(b backend.Backend, m backend.Metrics) *computev1.BackendInfo {
	status := &computev1.BackendStatus{State: b.State(), Message: text(b.Trouble())}
	if !b.Checked.IsZero() {
		status.LastCheckUnix = b.Checked.Unix()
	}
	can := &computev1.BackendCapabilities{Generate: true, Embed: true, Stream: true, Slots: number(b.Candidate("").Slots), MaxContext: number(b.MaxContext())}
	metrics := &computev1.BackendMetrics{
		AvgLatencyMs: milliseconds(m.FirstToken), RequestsPerMinute: number(m.PerMinute), ErrorRate: float32(m.ErrorRate),
		PowerWatts: float32(b.Profile.Draw.Watts()), PowerQuality: string(b.Profile.Quality),
	}
	for _, model := range b.Facts.Models {
		can.Models = append(can.Models, text(model.Name))
		if model.Resident {
			metrics.LoadedModels = append(metrics.LoadedModels, text(model.Name))
		}
	}
	return &computev1.BackendInfo{
		Id: b.ID, Type: b.Program(), Name: text(cmp.Or(b.Name, b.ID)), Hardware: string(b.Class),
		Status: status, Capabilities: can, Metrics: metrics,
	}
}

// HealthCheck sums up whether jobs can run.
func (s service) HealthCheck(ctx context.Context, _ *computev1.HealthCheckRequest) (*computev1.HealthCheckResponse, error) {
	s.client(ctx)
	status, each := s.Backends.Look(ctx).Health()
	return &computev1.HealthCheckResponse{Status: status, BackendHealth: each, TimestampUnix: time.Now().Unix(), Version: s.Version}, nil
}

// checker is gRPC's own health service: whether jobs can run, in a word.
type checker struct{ *Server }

// statusServiceUnknown is what only Watch may answer: SERVICE_UNKNOWN of
// grpc.health.v1, which the package has no name for.
const statusServiceUnknown grpchealth.Status = 3

// known reports whether a service is the one there is, or the server as a whole,
// which is nothing without it.
func known(service string) bool { return service == "" || service == computev1.ComputeServiceName }

// Check tells of a service. To one who watches, one that is not there is no error:
// it might come.
func (c checker) Check(ctx context.Context, q *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	call, _ := connect.CallInfoForHandlerContext(ctx)
	watched := call.Spec().StreamType != connect.StreamTypeUnary
	backends := c.Backends.Current
	switch {
	case watched && !known(q.Service):
		return &grpchealth.CheckResponse{Status: statusServiceUnknown}, nil
	case !known(q.Service):
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no service %s here", clip(q.Service)))
	case !watched:
		backends = func() backend.Snapshot { return c.Backends.Look(ctx) }
	}
	if status, _ := backends().Health(); status == backend.Unhealthy {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}

// Watch has the status told now, and again when it has changed, until it is
// stopped. Backends are asked once: whoever watches for days would keep them awake.
func (c checker) Watch(ctx context.Context, q *grpchealth.CheckRequest, changed func()) (stop func(), err error) {
	c.client(ctx)
	if !known(q.Service) {
		return func() {}, nil
	}
	c.Backends.Look(ctx)
	ctx, stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		for range c.Backends.Watch(ctx) {
			changed()
		}
	}()
	return stop, nil
}
