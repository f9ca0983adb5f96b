// Package oracle compares how sidemirror reads credential files with the tools whose files they are.
// It is a module of its own, since the kubelet's packages need many others.
package oracle
