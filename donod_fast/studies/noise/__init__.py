"""The noise study: do the scores detect damaged rows?"""
