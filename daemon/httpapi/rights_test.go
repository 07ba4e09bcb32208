package httpapi

import (
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/token"
)

func TestEveryPathTakesItsRight(t *testing.T) {
	for right, paths := range map[token.Right]string{
		token.Anyone:   "/ /healthz /health /readyz /version /api/version",
		token.Metrics:  "/metrics",
		token.Admin:    "/api/pull /joulemux/v1/pull /api/push /api/create /api/copy /api/delete /api/blobs/sha256:1 /api/blobs/x/y",
		token.Control:  "/joulemux/v1/hold /joulemux/v1/policy /joulemux/v1/cache /joulemux/v1/energy /joulemux/v1/energy/1 /joulemux/v1/what-is-new /joulemux/v1/models/pull /joulemux/v1/",
		token.Generate: "/api/generate /api/chat /api/embed /api/tags /api/show /api/ps /v1/chat/completions /v1/messages /v1/models /backends /joulemux/v1/generate /joulemux/v1/chat /joulemux/v1/explain /joulemux/v1/models /joulemux/v1/status /joulemux/v1/pipelines /joulemux/v1/pipelines/run /metricsx /nothing",
	} {
		for path := range strings.FieldsSeq(paths) {
			if got := rightFor(path); got != right {
				t.Errorf("%s takes %q, want %q", path, got, right)
			}
		}
	}
}
