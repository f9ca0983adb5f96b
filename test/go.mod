module github.com/sidemirror/sidemirror/test

go 1.26.0

require (
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
	github.com/sidemirror/sidemirror v0.0.0
	go.uber.org/goleak v1.3.0
)

replace github.com/sidemirror/sidemirror => ../
