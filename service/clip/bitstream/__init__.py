"""Reads from a packet's own bytes what a decoder will make of it, without decoding.

One module per family of codecs; `readers` says which codec is read by which.
"""
