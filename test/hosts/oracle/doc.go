// Package oracle compares what sidemirror writes for podman, buildah, skopeo and CRI-O with what
// containers/image reads. It is a module of its own, since that library needs many others.
package oracle
