package grpcapi

import (
	"testing"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/token"
)

func TestEveryMethodTakesItsRight(t *testing.T) {
	t.Parallel()
	services := computev1.File_computev1_compute_proto.Services()
	for i := range services.Len() {
		for n := range services.Get(i).Methods().Len() {
			path := "/" + string(services.Get(i).FullName()) + "/" + string(services.Get(i).Methods().Get(n).Name())
			if got := rightFor(path); got != token.Generate {
				t.Errorf("%s takes %q", path, got)
			}
		}
	}
	for _, path := range []string{
		"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
	} {
		if got := rightFor(path); got != token.Anyone {
			t.Errorf("%s takes %q", path, got)
		}
	}
}
