"""Real text for training and measuring, built on demand from Debian's packages and a wheel.

:mod:`descriptions` reads what Debian's translators wrote of its packages, :mod:`help_pages` reads
LibreOffice's help, :mod:`catalogs` its menus and messages, :mod:`home` Home Assistant's strings,
:mod:`dictionaries` FreeDict's words and :mod:`wordnet` what English words mean. :mod:`split` says
what is held out for tests, :mod:`apt` and :mod:`wheels` fetch with the machine's own sources.
"""
